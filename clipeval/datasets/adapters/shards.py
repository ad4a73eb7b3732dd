"""Which tar files make up a split of a webdataset, and the files of text beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from clipeval.config import DatasetEntry
from clipeval.datasets.download import fetch, is_remote, local_path
from clipeval.datasets.selection import refuse_commands
from clipeval.errors import DataError, UsageError

_MOST_SHARDS = 1_000_000
"""More are taken for a file that means harm: names of so many would fill the memory."""
HUB = "https://huggingface.co/datasets/"


@dataclass(frozen=True)
class Shards:
    """The local tar files of one split, and what the text files of the data set say (None where there is none)."""

    paths: Sequence[Path]
    stems: Sequence[str]
    """A name per shard, unique among them: the first part of its samples' ids."""
    kind: str
    """``classification``, ``multilabel``, ``retrieval`` or empty."""
    classes: list[str] | None
    templates: list[str] | None


def find_shards(name: str, reference: str, split: str, entry: DatasetEntry, offline: bool) -> Shards:
    """Locate the shards of ``reference`` as ``wds.open_wds`` describes them, downloading what is remote.

    Raises DataError naming the file that is missing or contradicts the others, UsageError for a URL that would run a
    command.
    """
    listed = reference.endswith((".tar", ".txt"))
    if listed and split != entry.split:
        raise DataError(f"{name}: {reference} is the split '{entry.split}'; it has no split '{split}'.")
    urls = _expand(reference) if listed else []
    root = (urls[0].rpartition("/")[0] or ".") if listed else _hub_root(reference.rstrip("/"), entry.revision)
    # The text files are fetched first: where what follows is in the cache, they are too, or do not exist.
    following = urls[0] if listed else f"{root}/{split}/nshards.txt"
    known = offline or (is_remote(root) and local_path(following).exists())
    kind = (_text(f"{root}/dataset_type.txt", known) or "").strip().lower()
    classes = _lines(f"{root}/classnames.txt", known)
    templates = _lines(f"{root}/zeroshot_classification_templates.txt", known)
    if kind not in ("", "classification", "multilabel", "retrieval"):
        raise DataError(f"{name}: {root}/dataset_type.txt: expected multilabel or retrieval, found '{kind}'.")
    if not listed:
        urls = _shards_of_split(name, root, split, offline)
    return Shards([_local(name, url, offline) for url in urls], _stems(urls), kind, classes, templates)


def _hub_root(reference: str, revision: str | None) -> str:
    """The folder under which a Hugging Face repository serves its files; another reference unchanged.

    CLIP_benchmark writes https://huggingface.co/datasets/ORG/REPO/tree/BRANCH.
    """
    if not reference.startswith(HUB):
        if revision:
            raise UsageError(f"wds:{reference}: revision: only repositories under {HUB} have revisions.")
        return reference
    organisation, repository, *rest = reference.removeprefix(HUB).split("/")
    branch = rest[1] if len(rest) > 1 else "main"
    return "/".join([f"{HUB}{organisation}/{repository}/resolve/{revision or branch}", *rest[2:]])


def _shards_of_split(name: str, root: str, split: str, offline: bool) -> list[str]:
    if not is_remote(root) and not Path(root, split).is_dir():
        splits = sorted(path.parent.name for path in Path(root).glob("*/nshards.txt"))
        found = f"splits there: {', '.join(splits)}" if splits else "no folder there holds an nshards.txt"
        raise DataError(f"{name}: {root} has no split '{split}' ({found}).")
    text = _text(f"{root}/{split}/nshards.txt", offline)
    if text is None:
        not_now = "not in the cache, and nothing is downloaded now (--offline or --plan)"
        uncached = not_now if offline and is_remote(root) else "missing"
        raise DataError(f"{name}: {root}/{split}/nshards.txt is {uncached}: the number of shards is unknown.")
    if not text.strip().isdecimal() or not 1 <= int(text.strip()[:20]) <= _MOST_SHARDS:
        raise DataError(f"{name}: {root}/{split}/nshards.txt: expected the number of shards, found {text.strip()!r}.")
    count = int(text)
    if not is_remote(root):
        stems = [path.stem for path in Path(root, split).glob("*.tar")]
        if beyond := sorted(stem for stem in stems if stem.isdecimal() and int(stem) >= count):
            raise DataError(
                f"{name}: {root}/{split}/nshards.txt says {count}, but there is {', '.join(beyond)}.tar too."
            )
    return [f"{root}/{split}/{index}.tar" for index in range(count)]


def _expand(reference: str) -> list[str]:
    """The tar files of a list ``A::B`` with brace patterns, or of a text file with one such list per line."""
    from braceexpand import braceexpand

    lines = [reference]
    if reference.endswith(".txt"):
        try:
            lines = [line.strip() for line in Path(reference).read_text("utf-8").splitlines()]
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{reference}: cannot read the list of shards: {error}.") from error
    urls = [url for line in lines if line for part in line.split("::") for url in braceexpand(part)]
    for url in urls:
        refuse_commands(url, reference)
    if not urls:
        raise DataError(f"{reference}: the list of shards is empty.")
    return urls


def _stems(urls: Sequence[str]) -> list[str]:
    stems = [url.rpartition("/")[2].removesuffix(".tar") for url in urls]
    return stems if len(set(stems)) == len(stems) else [str(index) for index in range(len(urls))]


def _local(name: str, url: str, offline: bool) -> Path:
    if is_remote(url):
        path = fetch(url, offline=offline)
        assert path is not None
        return path
    if not Path(url).is_file():
        raise DataError(f"{name}: the shard {url} is missing. Download or export the data set again.")
    return Path(url)


def _text(url: str, offline: bool) -> str | None:
    path = fetch(url, offline=offline, optional=True) if is_remote(url) else Path(url)
    if path is None or not path.is_file():
        return None
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{url}: cannot read it: {error}.") from error


def _lines(url: str, offline: bool) -> list[str] | None:
    text = _text(url, offline)
    return None if text is None else [line.strip() for line in text.splitlines()]

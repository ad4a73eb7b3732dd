"""Which tar files make up a split of a webdataset, and the files of text beside them."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from clipeval.config import DatasetEntry
from clipeval.datasets import braces
from clipeval.datasets.braces import MOST_NAMES
from clipeval.datasets.lines import read_lines
from clipeval.datasets.selection import refuse_commands
from clipeval.errors import DataError, NotHereError, UsageError, few
from clipeval.paths import with_home
from clipeval.remote import later
from clipeval.remote.copies import is_remote
from clipeval.remote.door import fetch, of_hub, snapshot_of
from clipeval.remote.hub import Snapshot
from clipeval.remote.origin import address

_AT_ONCE = 8
"""Remote shards that are fetched, or asked about, at a time."""


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
    revision: str = ""
    """The commit of the hub's repository that they are of; empty where they are of none."""
    remarks: tuple[str, ...] = ()


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
    source = snapshot_of(urls[0] if listed else f"{root}/{split}/nshards.txt", offline=offline)
    kind = "\n".join(_lines(f"{root}/dataset_type.txt", offline, source) or ()).strip().lower()
    classes = _lines(f"{root}/classnames.txt", offline, source)
    templates = _lines(f"{root}/zeroshot_classification_templates.txt", offline, source)
    if kind not in ("", "classification", "multilabel", "retrieval"):
        raise DataError(f"{name}: {root}/dataset_type.txt: expected multilabel or retrieval, found '{kind}'.")
    if not listed:
        urls = _shards_of_split(name, root, split, offline, source)
    at_once = _AT_ONCE if any(map(is_remote, urls)) else 1
    paths = later.each([partial(_local, name, url, offline, source) for url in urls], at_once)
    found = Shards(paths, _stems(urls), kind, classes, templates)
    return replace(found, revision=source.commit, remarks=source.remarks) if source else found


def _hub_root(reference: str, revision: str | None) -> str:
    """The folder under which a repository of the hub serves its files at ``revision``; another reference unchanged.

    CLIP_benchmark writes https://huggingface.co/datasets/ORG/REPO/tree/BRANCH.
    """
    if (place := of_hub(reference)) is None:
        if revision:
            raise UsageError(f"wds:{reference}: revision: only repositories of the hub have revisions.")
        return reference
    repository, folder = place
    return address(repository.kind, repository.name, revision or repository.revision, folder).rstrip("/")


def _shards_of_split(name: str, root: str, split: str, offline: bool, source: Snapshot | None) -> list[str]:
    if not is_remote(root) and not Path(root, split).is_dir():
        splits = sorted(path.parent.name for path in Path(root).glob("*/nshards.txt"))
        found = f"splits there: {few(splits)}" if splits else "no folder there holds an nshards.txt"
        raise DataError(f"{name}: {root} has no split '{split}' ({found}).")
    lines = _lines(f"{root}/{split}/nshards.txt", offline, source)
    if lines is None:
        not_now = "not in the cache, and nothing is downloaded now (--offline or --plan)"
        uncached = not_now if offline and is_remote(root) else "missing"
        kind = NotHereError if uncached == not_now else DataError
        raise kind(f"{name}: {root}/{split}/nshards.txt is {uncached}: the number of shards is unknown.")
    text = "\n".join(lines).strip()
    if not re.fullmatch("[0-9]{1,20}", text) or not 1 <= int(text) <= MOST_NAMES:
        raise DataError(f"{name}: {root}/{split}/nshards.txt: expected the number of shards, found {text!r:.40}.")
    count = int(text)
    if not is_remote(root):
        stems = [path.stem for path in Path(root, split).glob("*.tar")]
        if beyond := sorted(stem for stem in stems if stem.isdecimal() and int(stem) >= count):
            raise DataError(f"{name}: {root}/{split}/nshards.txt says {count}, but there is {few(beyond)}.tar too.")
    return [f"{root}/{split}/{index}.tar" for index in range(count)]


def _expand(reference: str) -> list[str]:
    """The tar files of a list ``A::B`` with brace patterns, or of a text file with one such list per line."""
    lines = [reference]
    if reference.endswith(".txt"):
        lines = read_lines(Path(reference)) or []
        if not lines:
            raise DataError(f"{reference}: there is no such list of shards, or it is empty.")
    urls: list[str] = []
    for part in (part for line in lines if line for part in line.split("::")):
        try:
            urls += braces.expand(with_home(part))
        except ValueError as error:
            raise DataError(f"{reference}: '{part:.200}': {error}. Write {{00000..00099}}.") from error
        if len(urls) > MOST_NAMES:
            raise DataError(f"{reference}: the list names more than {MOST_NAMES:,} shards.")
    for url in urls:
        refuse_commands(url, reference)
    if not urls:
        raise DataError(f"{reference}: the list of shards is empty.")
    return urls


def _stems(urls: Sequence[str]) -> list[str]:
    stems = [url.rpartition("/")[2].removesuffix(".tar") for url in urls]
    return stems if len(set(stems)) == len(stems) else [str(index) for index in range(len(urls))]


def _local(name: str, url: str, offline: bool, source: Snapshot | None) -> Path:
    if is_remote(url):
        path = fetch(url, offline=offline, of=source)
        assert path is not None
        return path
    if not os.path.isfile(url):  # noqa: PTH113  never raises, whatever the name is
        raise DataError(f"{name}: the shard {url} is missing. Download or export the data set again.")
    return Path(url)


def _lines(url: str, offline: bool, source: Snapshot | None) -> list[str] | None:
    path = fetch(url, offline=offline, optional=True, of=source) if is_remote(url) else Path(url)
    return None if path is None else read_lines(path, url)

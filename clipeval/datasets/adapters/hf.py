"""``hf:``: data sets of the Hugging Face hub, local Parquet files and local image folders, through ``datasets``."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from clipeval import digest
from clipeval.config import DatasetEntry, parse_yaml
from clipeval.datasets import contents, fingerprint
from clipeval.datasets.adapters.columns import captions_of, chosen_columns, labels_of
from clipeval.datasets.adapters.image_column import image_column
from clipeval.datasets.images import SUFFIXES
from clipeval.datasets.loaded import LoadedDataset
from clipeval.errors import DataError, UsageError
from clipeval.paths import cache_dir, expand
from clipeval.regular import read_regular

_KINDS = ("parquet", "imagefolder", "arrow", "webdataset", "json", "csv", "text")
"""The readers of ``datasets`` that are used. Others unpickle, or read formats that no test of ours covers."""
_DESCRIPTION_LIMIT = 16 << 20


def open_hf(name: str, reference: str, split: str, entry: DatasetEntry, offline: bool) -> LoadedDataset:
    """Open NAME[@REVISION] of the hub, a Parquet file or folder, or an image folder. Ids are row numbers.

    The image, label and caption columns are those of ``entry``, else those that their types and names give away. Code
    of a repository is never run, and image files that a table names lie in its own folder or in that of the hub's
    downloads. Raises DataError for a missing data set or split and for columns that cannot be told.
    """
    rows, root = _load(name, reference, split, entry, offline)
    columns = chosen_columns(name, rows, entry)
    images = image_column(name, rows, columns.image, root)
    labels, prompts = None, None
    if columns.label is not None:

        def other_splits() -> Iterator[Any]:
            for other in rows.info.splits or ():
                if other != split:
                    yield _load(name, reference, other, entry, offline)[0]

        labels, prompts = labels_of(name, rows, columns.label, entry, other_splits)
    captions = None if columns.caption is None else captions_of(name, rows, columns.caption)
    return LoadedDataset(
        name=name,
        split=split,
        fingerprint=fingerprint.of_contents([image.pixels for image in images.contents], labels, captions),
        ids=[str(index) for index in range(len(rows))],
        read=images,
        labels=labels,
        prompts=prompts,
        captions=captions,
        digests=[image.sha256 for image in images.contents],
        remarks=(*_unread(rows, root), *contents.remarks(images.contents)),
    )


def _unread(rows: Any, root: Path) -> Iterator[str]:
    """What the reader of image folders passes over without a word."""
    if rows.info.builder_name != "imagefolder" or not root.is_dir():
        return
    from datasets.packaged_modules.imagefolder.imagefolder import ImageFolder

    known = {*ImageFolder.EXTENSIONS, ".md", ".json", ".jsonl", ".csv", ".parquet", ".yaml", ".zip", ".tar", ".gz"}
    yield from contents.unread(path for path in sorted(root.rglob("*")) if path.suffix.lower() not in known)


@contextlib.contextmanager
def offline_hub() -> Iterator[None]:
    """Inside, the hub's libraries answer from their cache only. They read the environment variable once, at import."""
    import datasets
    import huggingface_hub.constants as hub

    switches: tuple[Any, ...] = (datasets.config, hub)
    before = [switch.HF_HUB_OFFLINE for switch in switches]
    try:
        for switch in switches:
            switch.HF_HUB_OFFLINE = True
        yield
    finally:
        for switch, value in zip(switches, before, strict=True):
            switch.HF_HUB_OFFLINE = value


def _load(name: str, reference: str, split: str, entry: DatasetEntry, offline: bool) -> tuple[Any, Path]:
    """The rows, and the folder of the data set."""
    import datasets

    path = expand(reference)
    root = path.parent if path.is_file() else path
    arguments: dict[str, Any]
    if path.exists() and entry.revision:
        raise UsageError(f"{name}: revision: {path} is on this machine; only data sets of the hub have revisions.")
    if path.is_file():
        if path.suffix != ".parquet":
            raise DataError(f"{name}: {path}: expected a folder, a .parquet file or a name on the hub.")
        if split != entry.split:
            raise DataError(f"{name}: {path} is the split '{entry.split}'; it has no split '{split}'.")
        arguments = {"path": "parquet", "data_files": {split: str(path)}, "cache_dir": _cache(name, path)}
    elif path.is_dir():
        _require_own_files(name, path)
        arguments = {"path": str(path), "cache_dir": _cache(name, path)}
    else:
        repository, _, pinned = reference.partition("@")
        if repository.count("/") > 1 or repository.startswith((".", "/", "~")):
            raise DataError(f"{name}: there is no file or folder {reference}, and it is not a name on the hub.")
        arguments = {"path": repository, "revision": pinned or entry.revision}
    try:
        with offline_hub() if offline else contextlib.nullcontext():
            builder = datasets.load_dataset_builder(**arguments)
            kind = type(builder).__module__.rpartition(".")[2]
            if kind not in _KINDS and not (kind == "cache" and not path.exists()):  # prepared before, from one of these
                raise DataError(f"{name}: hf:{reference} holds files of the kind {kind}; read are {', '.join(_KINDS)}.")
            builder.download_and_prepare()
            return builder.as_dataset(split=split), root
    except DataError:
        raise
    except Exception as error:  # the libraries underneath raise errors of a dozen kinds
        absent = offline and not path.exists()
        why = " It is not in the cache, and nothing is downloaded now (--offline or --plan)." if absent else ""
        reason = str(error).rstrip(".")
        raise DataError(f"{name}: hf:{reference}: cannot load the split '{split}': {reason}.{why}") from error


def _cache(name: str, path: Path) -> str:
    """Where ``datasets`` keeps its copy of a local table or folder: another place when its content changes, of which it
    only sees the modification time."""
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    tables = [file for file in files if file.suffix.lower() not in SUFFIXES]  # images are read where they are
    try:
        contents = dict(zip(tables, digest.of_files(tables), strict=True))
    except OSError as error:
        raise DataError(f"{name}: cannot read {error.filename}: {error.strerror}.") from error
    key = digest.of_value([[str(file), contents.get(file)] for file in files])
    return str(cache_dir() / "huggingface" / key[:32])


def _require_own_files(name: str, folder: Path) -> None:
    """Raise DataError where the description of a local data set names files that lie elsewhere."""
    for described in (folder / "README.md", folder / ".huggingface.yaml"):
        try:
            text = read_regular(described, _DESCRIPTION_LIMIT).decode("utf-8-sig")
            front = re.match(r"---[ ]*\r?\n(.*?)\n---", text, re.DOTALL) if described.suffix == ".md" else [text] * 2
            document = parse_yaml(front[1], str(described)) if front else None
        except FileNotFoundError:
            continue
        except (OSError, UnicodeDecodeError, UsageError) as error:
            raise DataError(f"{name}: {described}: cannot read it: {error}") from error
        for word in _texts_in(document.get("configs") if isinstance(document, dict) else None):
            if "://" in word or word.startswith(("/", "~")) or ".." in word.split("/"):
                raise DataError(f"{name}: {described}: '{word}' is not in the folder of the data set. Put it there.")


def _texts_in(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _texts_in(inner)

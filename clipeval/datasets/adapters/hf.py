"""``hf:``: data sets of the Hugging Face hub, local Parquet files and local image folders, through ``datasets``."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from clipeval import digest
from clipeval.config import DatasetEntry, parse_yaml
from clipeval.datasets import fingerprint
from clipeval.datasets.adapters.folder import SUFFIXES
from clipeval.datasets.adapters.image_column import image_column, reading
from clipeval.datasets.loaded import LoadedDataset
from clipeval.datasets.prompts import load_prompts
from clipeval.errors import DataError, UsageError, few
from clipeval.paths import cache_dir, expand
from clipeval.regular import read_regular

_LABEL_NAMES = ("label", "labels", "cls")
_CAPTION_NAMES = ("caption", "captions", "text", "txt")
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
    image_key = _chosen(name, rows, "image_key", entry.image_key) or _image_key(name, rows)
    label_key = _chosen(name, rows, "label_key", entry.label_key) or _label_key(name, rows)
    caption_key = _chosen(name, rows, "caption_key", entry.caption_key) or _caption_key(name, rows, label_key)
    images = image_column(name, rows, image_key, root)
    labels, classes = (None, None) if label_key is None else _labels(name, rows, label_key)
    captions = None if caption_key is None else _captions(name, rows, caption_key)
    if labels is None and captions is None:
        raise _unclear(name, rows, "label or caption column", "label_key or caption_key")
    return LoadedDataset(
        name=name,
        split=split,
        fingerprint=fingerprint.of_contents(images.digests, labels, captions),
        ids=[str(index) for index in range(len(rows))],
        read=images,
        labels=labels,
        prompts=None if labels is None else load_prompts(name, entry.prompts, entry.language, classes),
        captions=captions,
    )


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
        reason = _reason(error)
        raise DataError(f"{name}: hf:{reference}: cannot load the split '{split}': {reason}.{why}") from error


def _reason(error: Exception) -> str:
    """What ``datasets`` says, without advice about calls of its own that no spec can follow."""
    text = str(error).rstrip(".")
    if found := re.match(r"Config name is missing.*?: \[(.*?)\]", text, re.DOTALL):
        names = few(name.strip(" '\"") for name in found[1].split(","))
        return f"it has several configurations ({names}), and the spec says none"
    return text


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


def _chosen(name: str, rows: Any, option: str, key: str | None) -> str | None:
    if key is not None and key not in rows.features:
        raise DataError(f"{name}: {option}: there is no column '{key}'. Columns: {_described(rows)}.")
    return key


def _image_key(name: str, rows: Any) -> str:
    images = [key for key, feature in rows.features.items() if type(feature).__name__ == "Image"]
    images = images or [key for key in ("image", "img") if key in rows.features]
    if len(images) != 1:
        raise _unclear(name, rows, "image column", "image_key")
    return images[0]


def _label_key(name: str, rows: Any) -> str | None:
    classes = [key for key, feature in rows.features.items() if _class_label(feature) is not None]
    if len(classes) > 1 and not (named := [key for key in _LABEL_NAMES if key in classes]):
        raise _unclear(name, rows, "label column", "label_key")
    if len(classes) > 1:
        return named[0]
    integers = [key for key in _LABEL_NAMES if "int" in str(getattr(rows.features.get(key), "dtype", ""))]
    return next(iter(classes + integers), None)


def _caption_key(name: str, rows: Any, label_key: str | None) -> str | None:
    texts = [key for key, feature in rows.features.items() if _is_text(feature)]
    named = [key for key in _CAPTION_NAMES if key in texts]
    if not named and label_key is None and len(texts) > 1:
        raise _unclear(name, rows, "caption column", "caption_key")
    return next(iter(named or (texts if label_key is None else [])), None)


def _class_label(feature: Any) -> Any:
    """The ClassLabel of a column of classes or of lists of classes, else None."""
    inner = getattr(feature, "feature", feature)
    return inner if type(inner).__name__ == "ClassLabel" else None


def _is_text(feature: Any) -> bool:
    return getattr(getattr(feature, "feature", feature), "dtype", "") in ("string", "large_string")


def _labels(name: str, rows: Any, key: str) -> tuple[np.ndarray, list[str] | None]:
    """Labels and class names. A column of lists of classes is multi-label: ``[n, K]`` bool."""
    feature = _class_label(rows.features[key])
    classes = None if feature is None else [str(label).replace("_", " ") for label in feature.names]
    with reading(name, key):
        values = list(rows[key])
    if None in values:
        raise DataError(f"{name}: sample {values.index(None)} has no label in column '{key}'.")
    many = classes is not None and any(isinstance(value, list) for value in values)
    for sample, value in enumerate(values):
        for member in value if many and isinstance(value, list) else [value]:
            if not isinstance(member, int | float) or member != member // 1 or abs(member) >= 1 << 62:
                raise DataError(f"{name}: sample {sample}: {member!r:.40} in column '{key}' is no class index.")
            if many and not 0 <= member < len(classes or ()):
                raise DataError(f"{name}: class list and labels disagree: sample {sample} has the label {member}.")
    if classes is None or not many:
        return np.array(values, dtype=np.int64), classes
    hot = np.zeros((len(values), len(classes)), dtype=bool)
    for row, members in zip(hot, values, strict=True):
        row[members] = True
    return hot, classes


def _captions(name: str, rows: Any, key: str) -> list[tuple[str, ...]]:
    with reading(name, key):
        values = list(rows[key])
    captions = [(value,) if isinstance(value, str) else tuple(value or ()) for value in values]
    for sample, texts in enumerate(captions):
        if not all(isinstance(text, str) for text in texts):
            raise DataError(f"{name}: sample {sample}: column '{key}' holds no text.")
    return captions


def _unclear(name: str, rows: Any, what: str, option: str) -> DataError:
    return DataError(
        f"{name}: cannot tell the {what} among {_described(rows)}. Name it in benchmarks.yaml with {option}."
    )


def _described(rows: Any) -> str:
    return few(f"{key} ({type(feature).__name__})" for key, feature in rows.features.items())

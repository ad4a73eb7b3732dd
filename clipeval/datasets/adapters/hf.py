"""``hf:``: data sets of the Hugging Face hub, local Parquet files and local image folders, through ``datasets``."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from clipeval.config import DatasetEntry
from clipeval.datasets import fingerprint
from clipeval.datasets.images import decode
from clipeval.datasets.loaded import LoadedDataset
from clipeval.datasets.prompts import load_prompts
from clipeval.errors import DataError, UsageError
from clipeval.paths import cache_dir, expand

if TYPE_CHECKING:
    from PIL import Image

_LABEL_NAMES = ("label", "labels", "cls")
_CAPTION_NAMES = ("caption", "captions", "text", "txt")


def open_hf(name: str, reference: str, split: str, entry: DatasetEntry, offline: bool) -> LoadedDataset:
    """Open NAME[@REVISION] of the hub, a Parquet file or folder, or an image folder. Ids are row numbers.

    The image, label and caption columns are those of ``entry``, else those that their types and names give away. Code
    of a repository is never run. Raises DataError for a missing data set or split and for columns that cannot be told.
    """
    rows = _load(name, reference, split, entry, offline)
    images = image_column(name, rows, _chosen(name, rows, "image_key", entry.image_key) or _image_key(name, rows))
    label_key = _chosen(name, rows, "label_key", entry.label_key) or _label_key(name, rows)
    caption_key = _chosen(name, rows, "caption_key", entry.caption_key) or _caption_key(name, rows, label_key)
    labels, classes = (None, None) if label_key is None else _labels(name, rows, label_key)
    captions = None if caption_key is None else [_captions(value) for value in rows[caption_key]]
    if labels is None and captions is None:
        raise _unclear(name, rows, "label or caption column", "label_key or caption_key")
    return LoadedDataset(
        name=name,
        split=split,
        fingerprint=fingerprint.of_contents(images.digests(), labels, captions),
        ids=[str(index) for index in range(len(rows))],
        read=images,
        labels=labels,
        prompts=None if labels is None else load_prompts(name, entry.prompts, entry.language, classes),
        captions=captions,
    )


@dataclass(frozen=True)
class ImageColumn:
    """A table of one image column whose cells are {"bytes": ..., "path": ...}, decoded by clipeval."""

    name: str
    cells: Any
    key: str

    def __call__(self, index: int) -> Image.Image:
        sample = f"{self.name}: sample {index}"
        source = _source(self.cells[index][self.key])
        if source is None:
            raise DataError(f"{sample} has no image.")
        return decode(source, sample)

    def digests(self) -> list[str]:
        """Hex SHA-256 of every image's bytes, remembered for the table or the image files they come from."""
        paths = [source for source in self._sources() if isinstance(source, Path)] if self._in_files() else []
        if paths:
            try:
                return fingerprint.of_files(paths)
            except OSError as error:
                raise DataError(f"{self.name}: the image file {error.filename} cannot be read.") from error
        tables = [Path(file["filename"]) for file in self.cells.cache_files]
        key = ["hf", self.key, *([str(table), table.stat().st_size, table.stat().st_mtime_ns] for table in tables)]
        return list(fingerprint.remembered(key, self._hash_all) if tables else self._hash_all())

    def _in_files(self) -> bool:
        return len(self.cells) > 0 and isinstance(_source(self.cells[0][self.key]), Path)

    def _sources(self) -> Iterator[bytes | Path | None]:
        return (_source(cell[self.key]) for cell in self.cells)

    def _hash_all(self) -> list[str]:
        return [hashlib.sha256(source if isinstance(source, bytes) else b"").hexdigest() for source in self._sources()]


def image_column(name: str, rows: Any, key: str) -> ImageColumn:
    """The images of column ``key`` of a ``datasets.Dataset``."""
    from datasets import Image as ImageFeature

    return ImageColumn(name, rows.select_columns([key]).cast_column(key, ImageFeature(decode=False)), key)


def _source(cell: dict[str, Any] | None) -> bytes | Path | None:
    if cell is None or (cell["bytes"] is None and not cell["path"]):
        return None
    return Path(cell["path"]) if cell["bytes"] is None else bytes(cell["bytes"])


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


def _load(name: str, reference: str, split: str, entry: DatasetEntry, offline: bool) -> Any:
    import datasets

    path = expand(reference)
    arguments: dict[str, Any]
    if path.exists() and entry.revision:
        raise UsageError(f"{name}: revision: {path} is on this machine; only data sets of the hub have revisions.")
    if path.is_file():
        if path.suffix != ".parquet":
            raise DataError(f"{name}: {path}: expected a folder, a .parquet file or a name on the hub.")
        if split != entry.split:
            raise DataError(f"{name}: {path} is the split '{entry.split}'; it has no split '{split}'.")
        arguments = {"path": "parquet", "data_files": {split: str(path)}, "cache_dir": str(cache_dir() / "huggingface")}
    elif path.is_dir():
        arguments = {"path": str(path), "cache_dir": str(cache_dir() / "huggingface")}
    else:
        repository, _, pinned = reference.partition("@")
        if repository.count("/") > 1 or repository.startswith((".", "/", "~")):
            raise DataError(f"{name}: there is no file or folder {reference}, and it is not a name on the hub.")
        arguments = {"path": repository, "revision": pinned or entry.revision}
    try:
        with offline_hub() if offline else contextlib.nullcontext():
            return datasets.load_dataset(split=split, **arguments)
    except Exception as error:  # the libraries underneath raise errors of a dozen kinds
        absent = offline and not path.exists()
        why = " It is not in the cache, and nothing is downloaded now (--offline or --plan)." if absent else ""
        reason = str(error).rstrip(".")
        raise DataError(f"{name}: hf:{reference}: cannot load the split '{split}': {reason}.{why}") from error


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
    values = list(rows[key])
    if None in values:
        raise DataError(f"{name}: sample {values.index(None)} has no label in column '{key}'.")
    if classes is None or not isinstance(rows[0][key] if values else 0, list):
        return np.array(values, dtype=np.int64), classes
    hot = np.zeros((len(values), len(classes)), dtype=bool)
    for row, members in zip(hot, values, strict=True):
        row[members] = True
    return hot, classes


def _captions(value: Any) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value or ())


def _unclear(name: str, rows: Any, what: str, option: str) -> DataError:
    return DataError(
        f"{name}: cannot tell the {what} among {_described(rows)}. Name it in benchmarks.yaml with {option}."
    )


def _described(rows: Any) -> str:
    return ", ".join(f"{key} ({type(feature).__name__})" for key, feature in rows.features.items())

"""``hf:``: data sets of the Hugging Face hub, local Parquet files and local image folders, through ``datasets``."""

from __future__ import annotations

from typing import Any

import numpy as np

from clipeval.config import DatasetEntry
from clipeval.datasets import fingerprint
from clipeval.datasets.adapters.hf_source import split_source
from clipeval.datasets.adapters.image_column import image_column, reading
from clipeval.datasets.loaded import LoadedDataset
from clipeval.datasets.prompts import load_prompts
from clipeval.errors import DataError, few

_LABEL_NAMES = ("label", "labels", "cls")
_CAPTION_NAMES = ("caption", "captions", "text", "txt")


def open_hf(name: str, reference: str, split: str, entry: DatasetEntry, offline: bool) -> LoadedDataset:
    """Open NAME[:CONFIG][@REV] of the hub, a Parquet file or folder, or an image folder. Ids are row numbers.

    The image, label and caption columns are those of ``entry``, else those that their types and names give away. Code
    of a repository is never run, and image files that a table names lie in its own folder or in that of the hub's
    downloads. Raises DataError for a missing data set or split and for columns that cannot be told.
    """
    source = split_source(name, reference, split, entry, offline)
    rows, root = source.rows, source.root
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
        revision=source.revision,
    )


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

"""Which columns of a table hold images, labels and captions, and what labels and captions say."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from clipeval.config import DatasetEntry
from clipeval.datasets import labels as values
from clipeval.datasets.adapters.image_column import reading
from clipeval.datasets.base import Prompts
from clipeval.datasets.prompts import load_prompts
from clipeval.errors import DataError, UsageError, few

_LABEL_NAMES = ("label", "labels", "cls", "class", "classes", "class_name", "category", "categories", "target")
_CAPTION_NAMES = ("caption", "captions", "text", "txt")


@dataclass(frozen=True)
class Columns:
    """The names of a table's columns; at least one of ``label`` and ``caption``, or ``choices``, is there."""

    image: str
    label: str | None
    caption: str | None
    choices: tuple[str, ...] = ()


def chosen_columns(name: str, rows: Any, entry: DatasetEntry) -> Columns:
    """The columns that ``entry`` names, else those that types and names give away. A column called a label is one,
    whatever it holds, and never captions. Raises DataError for columns that are not there or cannot be told."""
    image = _chosen(name, rows, "image_key", entry.image_key) or _image_key(name, rows)
    if entry.choice_keys is not None:
        return Columns(image, None, None, _choice_keys(name, rows, entry))
    label = _chosen(name, rows, "label_key", entry.label_key) or _label_key(name, rows, entry.caption_key)
    caption = _chosen(name, rows, "caption_key", entry.caption_key) or _caption_key(name, rows, label)
    if label is None and caption is None:
        raise _unclear(name, rows, "label or caption column", "label_key or caption_key")
    return Columns(image, label, caption)


def labels_of(
    name: str, rows: Any, key: str, entry: DatasetEntry, other_splits: Callable[[], Iterator[Any]]
) -> tuple[np.ndarray, Prompts | None]:
    """Labels and prompts: ``[n]`` int64, or of a column of lists ``[n, K]`` bool.

    Texts are class names; the classes are those of all splits, sorted. ``other_splits`` opens the tables of the others.
    Raises DataError for what is no label, with its sample and column.
    """
    feature = _class_label(rows.features[key])
    found = _column(name, rows, key)
    if None in found:
        raise DataError(f"{name}: sample {found.index(None)} has no label in column '{key}'.")
    classes = None if feature is None else [str(label) for label in feature.names]
    if _is_text(rows.features[key]):
        tables = [found, *(_column(name, table, key) for table in other_splits() if key in table.features)]
        classes = sorted({text for table in tables for value in table for text in _texts(value)})
        index = {text: position for position, text in enumerate(classes)}
        found = [_numbered(value, index, f"{name}: sample {row}, column '{key}'") for row, value in enumerate(found)]
    own = None if classes is None else [text.replace("_", " ") for text in classes]
    prompts = load_prompts(name, entry.prompts, entry.language, own)

    def where(row: int) -> str:
        return f"{name}: sample {row}, column '{key}'"

    if not any(isinstance(value, list) for value in found):
        return values.whole_numbers(found, where), prompts
    if lone := [row for row, value in enumerate(found) if not isinstance(value, list)]:
        raise DataError(f"{where(lone[0])}: one label, and others have a list of them.")
    if classes is not None:
        return values.of_indices(found, len(classes), where), prompts
    return values.of_lists(found, len(prompts.classes) if prompts else None, where), prompts


def captions_of(name: str, rows: Any, key: str) -> list[tuple[str, ...]]:
    """The captions of each row, none or more. Raises DataError for what is no text, with its sample and column."""
    found = [() if value is None else value for value in _column(name, rows, key)]
    captions = [tuple(value) if isinstance(value, list | tuple) else (value,) for value in found]
    for sample, texts in enumerate(captions):
        if wrong := [(place, text) for place, text in enumerate(texts) if not isinstance(text, str)]:
            place, text = wrong[0]
            raise DataError(f"{name}: sample {sample}: column '{key}' holds no text: caption {place} is {text!r:.40}.")
    return captions


def choices_of(name: str, rows: Any, keys: Sequence[str]) -> list[tuple[str, ...]]:
    """The candidate captions of each row, one of each column. Raises DataError for what is no text."""
    columns = [_column(name, rows, key) for key in keys]
    for key, column in zip(keys, columns, strict=True):
        if wrong := [row for row, value in enumerate(column) if not isinstance(value, str)]:
            found = f"{column[wrong[0]]!r:.40}"
            raise DataError(f"{name}: sample {wrong[0]}: column '{key}' holds no text but {found}.")
    return list(zip(*columns, strict=True))


def _choice_keys(name: str, rows: Any, entry: DatasetEntry) -> tuple[str, ...]:
    keys = entry.choice_keys or ()
    if len(set(keys)) != len(keys) or len(keys) < 2 or entry.label_key or entry.caption_key:
        raise UsageError(
            f"{name}: choice_keys: expected two columns or more, the true caption's first, and no label_key or "
            "caption_key beside them."
        )
    return tuple(str(_chosen(name, rows, "choice_keys", key)) for key in keys)


def _column(name: str, rows: Any, key: str) -> list[Any]:
    with reading(name, key):
        return list(rows[key])


def _texts(value: Any) -> list[str]:
    return [text for text in (value if isinstance(value, list) else [value]) if isinstance(text, str)]


def _numbered(value: Any, index: dict[str, int], where: str) -> Any:
    """A class, or a list of them, by its place among ``index``."""
    for text in value if isinstance(value, list) else [value]:
        if not isinstance(text, str) or not text.strip():
            raise DataError(f"{where}: {text!r} is no class name.")
    return [index[text] for text in value] if isinstance(value, list) else index[value]


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


def _label_key(name: str, rows: Any, caption_key: str | None) -> str | None:
    classes = [key for key, feature in rows.features.items() if _class_label(feature) is not None]
    if len(classes) > 1 and not (named := [key for key in _LABEL_NAMES if key in classes]):
        raise _unclear(name, rows, "label column", "label_key")
    if len(classes) > 1:
        return named[0]
    named = [key for key in _LABEL_NAMES if _is_label(rows.features.get(key)) and key != caption_key]
    return next(iter(classes + named), None)


def _caption_key(name: str, rows: Any, label_key: str | None) -> str | None:
    texts = [key for key, feature in rows.features.items() if _is_text(feature) and key not in _LABEL_NAMES]
    named = [key for key in _CAPTION_NAMES if key in texts]
    if not named and label_key is None and len(texts) > 1:
        raise _unclear(name, rows, "caption column", "caption_key")
    return next(iter(named or (texts if label_key is None else [])), None)


def _class_label(feature: Any) -> Any:
    """The ClassLabel of a column of classes or of lists of classes, else None."""
    inner = getattr(feature, "feature", feature)
    return inner if type(inner).__name__ == "ClassLabel" else None


def _is_label(feature: Any) -> bool:
    kind = str(getattr(getattr(feature, "feature", feature), "dtype", ""))
    return "int" in kind or kind == "bool" or _is_text(feature)


def _is_text(feature: Any) -> bool:
    return getattr(getattr(feature, "feature", feature), "dtype", "") in ("string", "large_string")


def _unclear(name: str, rows: Any, what: str, option: str) -> DataError:
    return DataError(
        f"{name}: cannot tell the {what} among {_described(rows)}. Name it in benchmarks.yaml with {option}."
    )


def _described(rows: Any) -> str:
    return few(f"{key} ({type(feature).__name__})" for key, feature in rows.features.items())

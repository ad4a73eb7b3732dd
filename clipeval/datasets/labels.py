"""Labels by what they hold: one whole number per image, or 0 and 1 per class.

``where`` says of the n-th image where its label stands, for messages.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from clipeval.errors import DataError

_HIGHEST = 1_000_000
"""No data set has as many classes; a table of them per image would fill the memory."""

Where = Callable[[int], str]


def whole_numbers(values: Sequence[Any], where: Where) -> np.ndarray:
    """``[n]`` int64. Raises DataError for what is no class index."""
    for index, value in enumerate(values):
        _require_index(value, index, where)
    return np.array([int(value) for value in values], dtype=np.int64)


def zero_or_one(rows: Sequence[Sequence[Any]], where: Where) -> np.ndarray:
    """``[n, K]`` bool from rows of 0 and 1. Raises DataError for other values and for rows of different lengths."""
    for index, row in enumerate(rows):
        if len(row) != len(rows[0]):
            raise DataError(
                f"{where(index)}: class list and labels disagree: it is for {len(row)} classes, the first one for "
                f"{len(rows[0])}."
            )
        if wrong := [value for value in row if not _is_number(value) or value not in (0, 1)]:
            raise DataError(f"{where(index)}: a label is {wrong[0]!r:.40}; 0 is no and 1 is yes.")
    return np.array(rows, dtype=bool)


def of_indices(rows: Sequence[Sequence[Any]], classes: int | None, where: Where) -> np.ndarray:
    """``[n, K]`` bool from lists of the classes of each image; K is ``classes``, None: as many as are named.

    Raises DataError for what is no index of a class."""
    for index, row in enumerate(rows):
        for value in row:
            _require_index(value, index, where)
            if classes is not None and value >= classes:
                raise DataError(f"{where(index)}: class list and labels disagree: class {value} of {classes}.")
    width = classes if classes is not None else 1 + max((int(value) for row in rows for value in row), default=0)
    hot = np.zeros((len(rows), width), dtype=bool)
    for found, row in zip(hot, rows, strict=True):
        found[[int(value) for value in row]] = True
    return hot


def of_lists(rows: Sequence[Sequence[Any]], classes: int | None, where: Where) -> np.ndarray:
    """``[n, K]`` bool from lists that are either 0 and 1 per class or the classes of each image.

    Raises DataError where they are neither, or may be both.
    """
    lengths = {len(row) for row in rows}
    values = [value for row in rows for value in row]
    per_class = len(lengths) == 1 and all(value in (0, 1) for value in values) and classes in (None, *lengths)
    if per_class and values and all(isinstance(value, bool) for value in values):
        return zero_or_one(rows, where)
    if not per_class or all(len(set(row)) == len(row) for row in rows):
        if per_class and lengths == {2}:
            raise DataError(
                f"{where(0)}: lists like {list(rows[0])} may be 0 and 1 per class or the numbers of two classes. "
                "Write booleans, or give the column a list type of class labels."
            )
        return of_indices(rows, classes, where)
    return zero_or_one(rows, where)


def _require_index(value: Any, index: int, where: Where) -> None:
    if not _is_number(value) or value != value // 1 or not 0 <= value < _HIGHEST:
        raise DataError(f"{where(index)}: {value!r:.40} is no class index, which is a whole number from 0.")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.integer | np.floating | np.bool_)

"""What data sets say of their images beside labels: whole numbers per field, such as the region of a photo."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from clipeval.errors import DataError, few

_HIGHEST = 2**63


def named(
    name: str, fields: Sequence[str], rows: Sequence[Sequence[float] | None], ids: Sequence[str]
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """The numbers ``rows`` of each sample by field, ``[n]`` int64 each, and remarks.

    A fraction is cut off, as in the package wilds, and said: Dollar Street's incomes have some, and no metric groups by
    them. Raises DataError for a sample that has another count of numbers than there are ``fields``, and for what is no
    number of 64 bits.
    """
    for sample, row in zip(ids, rows, strict=True):
        if row is None or len(row) != len(fields):
            found = "no .npy" if row is None else f"{len(row)} numbers in .npy"
            raise DataError(
                f"{name}: sample {sample} has {found}, but metadata: in benchmarks.yaml names {len(fields)}: "
                f"{few(fields)}. Name each number of the .npy files, in their order."
            )
    columns = {field: [row[place] for row in rows if row is not None] for place, field in enumerate(fields)}
    return {field: _whole(name, field, values, ids) for field, values in columns.items()}, tuple(
        f"{cut:,} of {len(ids):,} values of the metadata '{field}' have a fraction, which was cut off"
        for field, values in columns.items()
        if (cut := sum(value != int(value) for value in values))
    )


def _whole(name: str, field: str, values: Sequence[float], ids: Sequence[str]) -> np.ndarray:
    for sample, value in zip(ids, values, strict=True):
        if not math.isfinite(value) or not -_HIGHEST <= int(value) < _HIGHEST:
            raise DataError(f"{name}: sample {sample}: the metadata '{field}' is {value}, which is no whole number.")
    return np.array([int(value) for value in values], np.int64)

"""Part of a data set, for limited runs and k-shot probes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from PIL import Image

from clipeval.datasets.base import Dataset

T = TypeVar("T")


class Subset(Dataset):
    """The samples of ``whole`` at the ascending ``indices``; ids, labels and captions stay those of the whole."""

    def __init__(self, whole: Dataset, indices: np.ndarray) -> None:
        self.whole = whole
        self.indices = indices
        self.name = whole.name
        self.split = whole.split
        self.fingerprint = whole.fingerprint
        self.prompts = whole.prompts
        self.ids = _pick(whole.ids, indices)
        self.labels = None if whole.labels is None else whole.labels[indices]
        self.captions = None if whole.captions is None else _pick(whole.captions, indices)
        self.choices = None if whole.choices is None else _pick(whole.choices, indices)
        self.cues = None if whole.cues is None else _pick(whole.cues, indices)
        self.associated = None if whole.associated is None else whole.associated[indices]
        self.groups = None if whole.groups is None else whole.groups[indices]
        self.revision = whole.revision
        self.digests = None if whole.digests is None else _pick(whole.digests, indices)
        self.metadata = None if whole.metadata is None else {k: v[indices] for k, v in whole.metadata.items()}
        self.remarks = whole.remarks

    def image(self, index: int) -> Image.Image:
        """Decode one image of the subset. Raises DataError."""
        return self.whole.image(int(self.indices[index]))


def evenly_spaced(dataset: Dataset, limit: int | None) -> np.ndarray:
    """Indices of ``limit`` samples spread over the whole data set (all of them when ``limit`` is None or larger).

    Data sets are often sorted by class, so the first samples would be of one class only. Items of several images
    (``groups``) stay whole.
    """
    n = len(dataset)
    if limit is None or limit >= n:
        return np.arange(n)
    if dataset.groups is not None:
        groups = np.unique(dataset.groups)
        kept = groups[_spaced(len(groups), min(limit, len(groups)))]
        return np.flatnonzero(np.isin(dataset.groups, kept))
    return _spaced(n, limit)


def _spaced(n: int, count: int) -> np.ndarray:
    return np.arange(count) * n // count


def _pick(values: Sequence[T], indices: np.ndarray) -> list[T]:
    return [values[int(index)] for index in indices]

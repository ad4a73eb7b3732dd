"""A data set whose contents are known and whose images are read one by one by a function."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from clipeval.datasets.base import Dataset, Prompts

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True, kw_only=True, eq=False)
class LoadedDataset(Dataset):
    """The attributes of ``Dataset``, and ``read``: a picklable function from index to image."""

    name: str
    split: str
    fingerprint: str
    ids: Sequence[str]
    read: Callable[[int], Image.Image]
    labels: np.ndarray | None = None
    prompts: Prompts | None = None
    captions: Sequence[tuple[str, ...]] | None = None
    choices: Sequence[tuple[str, ...]] | None = None
    cues: Sequence[str] | None = None
    associated: np.ndarray | None = None
    groups: np.ndarray | None = None
    revision: str = ""
    digests: Sequence[str] | None = None
    metadata: Mapping[str, np.ndarray] | None = None
    remarks: tuple[str, ...] = ()

    def image(self, index: int) -> Image.Image:
        """Decode one image. Raises DataError that names the sample when it is missing, corrupt or truncated."""
        return self.read(index)


_OF_EACH_SAMPLE = ("ids", "labels", "captions", "choices", "groups", "cues", "associated", "digests", "metadata")


def some_rows(dataset: LoadedDataset, rows: np.ndarray, **changed: Any) -> LoadedDataset:
    """The samples at ``rows``, in their order; ``changed`` are the attributes that are not those of these samples."""
    kept = {name: _at(getattr(dataset, name), rows) for name in _OF_EACH_SAMPLE}
    return replace(dataset, **{"read": _Rows(dataset.read, rows)} | kept | changed)


def _at(values: Any, rows: np.ndarray) -> Any:
    if values is None or isinstance(values, np.ndarray):
        return values if values is None else values[rows]
    if isinstance(values, Mapping):
        return {key: _at(column, rows) for key, column in values.items()}
    return [values[row] for row in rows.tolist()]


@dataclass(frozen=True)
class _Rows:
    """The images of some rows."""

    read: Callable[[int], Image.Image]
    rows: np.ndarray

    def __call__(self, index: int) -> Image.Image:
        return self.read(int(self.rows[index]))

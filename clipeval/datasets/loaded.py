"""A data set whose contents are known and whose images are read one by one by a function."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

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

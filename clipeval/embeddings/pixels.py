"""The exact uint8 pixels a checkpoint sees, decoded once per (data set, resize and crop)."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from clipeval import paths
from clipeval.datasets.base import Dataset
from clipeval.embeddings.records import RecordFile, entry_folder
from clipeval.errors import ClipevalError

if TYPE_CHECKING:
    import torch

    from clipeval.models.base import Encoder

_VERSION = 1


def pixel_file(dataset: Dataset, encoder: Encoder) -> RecordFile:
    """The cache file of ``dataset`` under ``encoder``'s resize and crop."""
    key = {
        "version": _VERSION,
        "dataset": dataset.fingerprint,
        "n": len(dataset),
        "preprocessing": encoder.preprocessing.spatial_key(),
    }
    height, width = encoder.preprocessing.size
    return RecordFile(entry_folder(paths.cache_dir(), "pixels", key) / "pixels.rec", len(dataset), height * width * 3)


class PixelBatches:
    """Batches of pixels for a list of indices: a map-style set of batches for torch's DataLoader.

    A batch is read from the cache where it is there and decoded, then cached, where it is not. ``decoded`` of the
    yielded batches counts the images that had to be decoded.
    """

    def __init__(self, dataset: Dataset, encoder: Encoder, indices: np.ndarray, batch_size: int) -> None:
        self._dataset = dataset
        self._to_pixels = encoder.pixels
        self._file = pixel_file(dataset, encoder)
        self._shape = (*encoder.preprocessing.size, 3)
        self._batches = [indices[start : start + batch_size] for start in range(0, len(indices), batch_size)]

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, number: int) -> tuple[np.ndarray, np.ndarray, int] | ClipevalError:
        """(indices ``[b]``, pixels ``[b, H, W, 3]`` uint8, images decoded); an error is returned, not raised, so that
        it crosses process borders unchanged."""
        try:
            return self._read(self._batches[number])
        except ClipevalError as error:
            return error

    def _read(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
        rows, valid = self._file.read(indices)
        pixels = rows.reshape(len(indices), *self._shape)
        missing = np.flatnonzero(~valid)
        for row in missing:
            pixels[row] = self._to_pixels(self._dataset.image(int(indices[row])))
        if len(missing):
            self._file.write(indices[missing], pixels[missing])
        return indices, pixels, len(missing)


def load(batches: PixelBatches, workers: int, pin_memory: bool) -> Iterator[tuple[np.ndarray, torch.Tensor, int]]:
    """Iterate over ``batches`` in order with ``workers`` processes (0: in this one). Raises the first error met."""
    import torch

    workers = min(workers, len(batches))
    with warnings.catch_warnings():
        # More processes than cores are the caller's choice: decoding may wait for a network.
        warnings.filterwarnings("ignore", "This DataLoader will create")
        loader: Any = torch.utils.data.DataLoader(
            cast(Any, batches),
            batch_size=None,
            num_workers=workers,
            collate_fn=cast(Any, _as_tensor),
            pin_memory=pin_memory,
        )
        items = iter(loader)
    for item in items:
        if isinstance(item, ClipevalError):
            raise item
        yield item


def _as_tensor(item: tuple[np.ndarray, np.ndarray, int] | ClipevalError) -> object:
    import torch

    if isinstance(item, ClipevalError):
        return item
    indices, pixels, decoded = item
    return indices, torch.from_numpy(pixels), decoded

"""The exact uint8 pixels a checkpoint sees, decoded once per (data set, resize and crop)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from clipeval import identity, paths
from clipeval.console import say
from clipeval.datasets.base import Dataset
from clipeval.embeddings import entries, room
from clipeval.embeddings.records import RecordFile
from clipeval.errors import ClipevalError, StoreError

if TYPE_CHECKING:
    import torch

    from clipeval.models.base import Encoder

    Batch = tuple[np.ndarray, torch.Tensor, int]

_SMALL_SET_BATCHES = 4
"""Below this many batches, starting decoder processes takes longer than decoding."""


@dataclass(frozen=True)
class LoaderSettings:
    """How images are fed to a checkpoint. None of it changes a result.

    ``fresh`` is the token of a run that reads nothing from the stores that was computed before it; None: it does.
    """

    batch_size: int = 64
    workers: int = 0
    fresh: str | None = None
    keeps: Collection[str] | None = None
    """The splits whose pixels are kept on the disk; None: of all."""

    def keep(self, dataset: Dataset) -> bool:
        """Whether the pixels of a data set are kept."""
        return self.keeps is None or dataset.split in self.keeps


def pixel_file(dataset: Dataset, encoder: Encoder, fresh: str | None = None, *, keeps: bool = True) -> RecordFile:
    """The cache file of ``dataset`` under ``encoder``'s resize and crop; where nothing ``keeps`` it, its folder is not
    made. Raises StoreError."""
    key = identity.pixel_key(encoder.pixel_settings)
    key |= {"dataset": dataset.fingerprint, "n": len(dataset)}
    entry = paths.cache_dir() / entries.address("pixels", key)
    if keeps or entry.exists():
        entry = entries.folder("pixels", key, fresh)
    return RecordFile(entry / "pixels.rec", len(dataset), math.prod(encoder.record_shape))


class PixelBatches:
    """Batches of pixels for a list of indices: a map-style set of batches for torch's DataLoader.

    A batch is read from the cache where it is there, and decoded where it is not; whether it is kept then is a setting.
    An image that cannot be decoded leaves nothing of its batch in the cache. A cache that has no room, or takes
    nothing, is no fault: pixels only save time.
    """

    def __init__(self, dataset: Dataset, encoder: Encoder, indices: np.ndarray, settings: LoaderSettings) -> None:
        self._dataset = dataset
        self._to_pixels = encoder.pixels
        keeps = settings.keep(dataset)
        self._file = pixel_file(dataset, encoder, settings.fresh, keeps=keeps)
        self._shape = encoder.record_shape
        self._keeps = keeps and room.make(self._file.path.parent, len(dataset) * self._file.row_bytes)
        size = settings.batch_size
        self._batches = [indices[start : start + size] for start in range(0, len(indices), size)]

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, number: int) -> tuple[np.ndarray, np.ndarray, int, str] | ClipevalError:
        """(indices ``[b]``, pixels ``[b, *record_shape]`` uint8, images decoded, why they were not kept); an error is
        returned, not raised, so that it crosses process borders unchanged."""
        try:
            return self._read(self._batches[number])
        except ClipevalError as error:
            return error

    def _read(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray, int, str]:
        rows, valid = self._file.read(indices)
        pixels = rows.reshape(len(indices), *self._shape)
        missing = np.flatnonzero(~valid)
        for row in missing:
            pixels[row] = self._to_pixels(self._dataset.image(int(indices[row])))
        problem = ""
        if len(missing) and self._keeps:
            try:
                self._file.write(indices[missing], pixels[missing])
            except StoreError as error:
                self._keeps, problem = False, str(error)
        return indices, pixels, len(missing), problem


@contextmanager
def loaded(
    dataset: Dataset, encoder: Encoder, indices: np.ndarray, settings: LoaderSettings
) -> Iterator[Iterator[Batch]]:
    """Batches (indices ``[b]``, pixels ``[b, *record_shape]`` uint8, images decoded) of ``dataset``'s images, in order.

    Decoder processes have ended when the context is left, however it is left. Iterating raises the first error met.
    """
    import torch

    batches = PixelBatches(dataset, encoder, indices, settings)
    workers = min(settings.workers, len(batches)) if len(batches) >= _SMALL_SET_BATCHES else 0
    with warnings.catch_warnings():
        # More processes than cores are the caller's choice: decoding may wait for a network.
        warnings.filterwarnings("ignore", "This DataLoader will create")
        loader: Any = torch.utils.data.DataLoader(
            cast(Any, batches),
            batch_size=None,
            num_workers=workers,
            collate_fn=cast(Any, _as_tensor),
            pin_memory=encoder.device.startswith("cuda"),
        )
        items = iter(loader)
    try:
        yield _or_raise(items)
    finally:
        if workers:
            # torch does it when nothing refers to the iterator any more; the traceback of an interrupt does.
            items._shutdown_workers()


def _or_raise(items: Iterable[tuple[np.ndarray, torch.Tensor, int, str] | ClipevalError]) -> Iterator[Batch]:
    told = False
    for item in items:
        if isinstance(item, ClipevalError):
            raise item
        *batch, problem = item
        if problem and not told:
            say(f"pixels are not kept, so another checkpoint decodes them again: {problem}")
            told = True
        yield cast("Batch", tuple(batch))


def _as_tensor(item: tuple[np.ndarray, np.ndarray, int, str] | ClipevalError) -> object:
    import torch

    if isinstance(item, ClipevalError):
        return item
    indices, pixels, *rest = item
    return indices, torch.from_numpy(pixels), *rest

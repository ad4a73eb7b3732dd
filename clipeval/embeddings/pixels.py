"""The exact uint8 pixels a checkpoint sees, decoded once per (data set, resize and crop)."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from clipeval import identity, paths
from clipeval.console import say
from clipeval.datasets.base import Dataset
from clipeval.embeddings import entries, room
from clipeval.embeddings.decoders import Decoders, Piece
from clipeval.embeddings.decoding import Decoding
from clipeval.embeddings.records import RecordFile

if TYPE_CHECKING:
    import torch

    from clipeval.models.base import Encoder

    Batch = tuple[np.ndarray, torch.Tensor, int]

T = TypeVar("T")

_FEW_IMAGES = 64
"""Below this many, starting decoder processes takes longer than decoding."""
_READERS = 4
"""Threads that read cached pixels: what they do is done outside of Python's lock."""


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
    decoders: Decoders | None = None
    """Processes that decode, and are kept for other data sets; None: ``workers`` own ones for each."""

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


@contextmanager
def loaded(
    dataset: Dataset, encoder: Encoder, indices: np.ndarray, settings: LoaderSettings
) -> Iterator[Iterator[Batch]]:
    """Batches (indices ``[b]``, pixels ``[b, *record_shape]`` uint8, images decoded) of ``dataset``'s images, in order.

    What the cache has is read by threads; the rest is decoded by the processes of ``settings.decoders``, by own ones
    where there are none, or here where it is little. Iterating raises the first error met. No process is left where the
    context ends by an interrupt, and no thread however it ends.
    """
    decoders = settings.decoders or Decoders(settings.workers)
    reading = _Reading(dataset, encoder, indices, settings, decoders)
    try:
        yield reading.batches()
    except BaseException as error:
        if not isinstance(error, Exception):
            decoders.close()
        raise
    finally:
        reading.end()
        if decoders is not settings.decoders:
            decoders.close()


@dataclass(eq=False)
class _Batch:
    """A batch whose pixels are in ``pixels`` but for its rows ``missing``, which ``pieces`` of others may bring."""

    indices: np.ndarray
    pixels: np.ndarray
    missing: np.ndarray
    tensor: torch.Tensor
    pieces: list[Piece] = field(default_factory=list)


class _Reading:
    """One pass over images of a data set."""

    def __init__(
        self, dataset: Dataset, encoder: Encoder, indices: np.ndarray, settings: LoaderSettings, decoders: Decoders
    ) -> None:
        keeps = settings.keep(dataset)
        self._file = pixel_file(dataset, encoder, settings.fresh, keeps=keeps)
        keeps = keeps and room.make(self._file.path.parent, len(dataset) * self._file.row_bytes)
        self._shape = encoder.record_shape
        self._job = Decoding(dataset, encoder.pixels, self._shape, self._file if keeps else None)
        self._is_cached = self._file.path.exists()
        self._indices, self._size = indices, settings.batch_size
        self._pinned = encoder.device.startswith("cuda")
        self._threads = ThreadPoolExecutor(_READERS)
        self._decoders = decoders
        self._elsewhere = decoders.workers > 0 and (len(indices) >= _FEW_IMAGES or decoders.knows(dataset))
        self._begun = self._told = False

    def batches(self) -> Iterator[Batch]:
        """In order; raises the first error met."""
        starts = range(0, len(self._indices), self._size)
        chosen = (self._indices[start : start + self._size] for start in starts)
        found: Iterator[_Batch] = map(self._blank, chosen)
        if self._is_cached:
            asked = _ahead((self._threads.submit(self._read, part) for part in chosen), _READERS)
            found = (future.result() for future in asked)
        depth = math.ceil(self._decoders.most_images(self._shape) / self._size) if self._elsewhere else 0
        for batch in _ahead(map(self._asked_for, found), depth):
            yield self._whole(batch)

    def end(self) -> None:
        """Nothing more will be asked for."""
        self._threads.shutdown(cancel_futures=True)
        if self._begun:
            self._decoders.end(self._job)

    def _read(self, indices: np.ndarray) -> _Batch:
        """What the cache has of a batch. For a thread."""
        import torch

        rows, valid = self._file.read(indices)
        tensor = torch.from_numpy(rows.reshape(len(indices), *self._shape))
        tensor = tensor.pin_memory() if self._pinned else tensor
        return _Batch(indices, tensor.numpy(), np.flatnonzero(~valid), tensor)

    def _blank(self, indices: np.ndarray) -> _Batch:
        import torch

        tensor = torch.empty((len(indices), *self._shape), dtype=torch.uint8, pin_memory=self._pinned)
        return _Batch(indices, tensor.numpy(), np.arange(len(indices)), tensor)

    def _asked_for(self, batch: _Batch) -> _Batch:
        """The batch, its missing images given to the processes, where those decode."""
        if len(batch.missing) and self._elsewhere:
            if not self._begun:
                self._decoders.begin(self._job)
                self._begun = True
            wanted = batch.indices[batch.missing]
            batch.pieces = self._decoders.pieces(self._job, wanted, batch.pixels, batch.missing)
        return batch

    def _whole(self, batch: _Batch) -> Batch:
        problems = [self._decoders.wait(piece) for piece in batch.pieces]
        if len(batch.missing) and not batch.pieces:
            decoded = np.empty((len(batch.missing), *self._shape), np.uint8)
            problems = [self._job(batch.indices[batch.missing], decoded)]
            batch.pixels[batch.missing] = decoded
        if any(problems) and not self._told:
            self._told = True
            say(f"pixels are not kept, so another checkpoint decodes them again: {next(filter(None, problems))}")
        return batch.indices, batch.tensor, len(batch.missing)


def _ahead(items: Iterable[T], count: int) -> Iterator[T]:
    """The same items, each made ``count`` items before it is handed out."""
    made: deque[T] = deque()
    for item in items:
        made.append(item)
        if len(made) > count:
            yield made.popleft()
    yield from made

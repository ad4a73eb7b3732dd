"""Batches from worker processes."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from clipeval.errors import ClipevalError, DataError, UsageError
from clipeval_train.input.bad import Tally
from clipeval_train.input.batch import Batch
from clipeval_train.input.source import Source
from clipeval_train.signals import left_to_parent

_JOB = 64
"""Most samples that a worker prepares at a time: what is under way takes shared memory."""
_BATCHES_AHEAD = 2
_POLL_SECONDS = 0.2
_FETCHES_AT_ONCE = 8
"""Shards of a source that are fetched side by side: one connection gives a fraction of what a network does."""


class Samples(Protocol):
    """What is decoded: the samples at the positions of a stream."""

    image_shape: tuple[int, int, int]
    context_length: int

    def samples(self, start: int, stop: int) -> tuple[torch.Tensor, torch.Tensor, np.ndarray, Tally]:
        """Images, tokens and keys of a stretch as in ``Batch``, decoded in this process. Raises DataError."""

    def remote_units(self, parts: Parts) -> Iterator[tuple[Source, Iterator[tuple[int, int]]]]:
        """The sources whose shards have to be fetched, each with what is read of it (``Lanes.units``)."""


@dataclass(frozen=True)
class Parts:
    """What one of ``world_size`` ranks has of the batches of stream positions [start, stop)."""

    start: int
    stop: int
    batch_size: int
    rank: int
    world_size: int

    def __post_init__(self) -> None:
        sizes = {min(self.batch_size, self.stop - self.start), (self.stop - self.start) % self.batch_size}
        for size in sizes:
            if size % self.world_size:
                raise UsageError(
                    f"batch_size: a batch of {size} samples cannot be divided equally among {self.world_size} "
                    "processes. Give a batch_size and a number of samples that can."
                )

    def __iter__(self) -> Iterator[tuple[int, int]]:
        for first in range(self.start, self.stop, self.batch_size):
            size = (min(first + self.batch_size, self.stop) - first) // self.world_size
            yield first + self.rank * size, first + (self.rank + 1) * size

    def jobs(self) -> Iterator[tuple[int, int]]:
        """The parts in pieces for one worker each."""
        for start, stop in self:
            for first in range(start, stop, _JOB):
                yield first, min(first + _JOB, stop)


def decoded(samples: Samples, parts: Parts, workers: int, budget: float, pin_memory: bool) -> Iterator[Batch]:
    """The batches of ``parts``, prepared by ``workers`` processes, or here when that is 0.

    Raises DataError when more than the share ``budget`` of the samples is bad, and what a worker raises.
    """
    pieces = _Pieces(samples, parts, workers)
    ahead = _FetchAhead(samples, parts)  # after the workers were forked: a fork copies the locks that threads hold
    total = Tally()
    try:
        for start, stop in parts:
            batch, tally = _joined(pieces, samples, start, stop, pin_memory)
            total.add(tally)
            total.check(budget)
            ahead.reached = stop
            yield batch
    finally:
        ahead.stop()
        pieces.close()


def _joined(pieces: _Pieces, samples: Samples, start: int, stop: int, pin_memory: bool) -> tuple[Batch, Tally]:
    began = time.monotonic()
    images = torch.empty(stop - start, *samples.image_shape, dtype=torch.uint8, pin_memory=pin_memory)
    tokens = torch.empty(stop - start, samples.context_length, dtype=torch.int64, pin_memory=pin_memory)
    keys, tally = torch.empty(stop - start, dtype=torch.int64), Tally()
    row = 0
    while row < stop - start:
        some_images, some_tokens, some_keys, some_tally = pieces.next()
        rows = slice(row, row := row + len(some_keys))
        images[rows], tokens[rows], keys[rows] = some_images, torch.from_numpy(some_tokens), torch.from_numpy(some_keys)
        tally.add(some_tally)
    return Batch(start, stop, images, None, tokens, keys, dict(tally.bad), time.monotonic() - began), tally


class _Pieces:
    """What the workers prepare, job by job in order. The only holder of the DataLoader's iterator: the traceback of an
    error keeps what its frames hold, and the workers would live on."""

    def __init__(self, samples: Samples, parts: Parts, workers: int) -> None:
        jobs_per_batch = -(-parts.batch_size // parts.world_size // _JOB)
        jobs = DataLoader(
            _Decoding(samples),
            batch_size=None,
            sampler=parts.jobs(),
            collate_fn=_as_is,
            num_workers=workers,
            prefetch_factor=max(2, -(-_BATCHES_AHEAD * jobs_per_batch // workers)) if workers else None,
            worker_init_fn=left_to_parent,
            generator=torch.Generator(),  # else the loader draws a seed from the generator that the model uses
        )
        self._iterator: Iterator[Any] | None = iter(jobs)

    def next(self) -> Any:
        """The next piece. Raises what its worker met, and DataError when a worker was killed."""
        assert self._iterator is not None
        try:
            piece = next(self._iterator)
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise DataError(
                f"a process that decodes images was killed ({error}). If memory ran out, give fewer `workers`."
            ) from error
        if isinstance(piece, ClipevalError):
            raise piece
        return piece

    def close(self) -> None:
        """End the workers."""
        self._iterator = None


class _Decoding(Dataset):
    """What runs in a worker. Arrays travel by pipe and images by shared memory; errors come back as values, since the
    DataLoader would wrap their message in a traceback."""

    def __init__(self, samples: Samples) -> None:
        self._samples = samples

    def __getitem__(self, job: tuple[int, int]) -> Any:
        try:
            images, tokens, keys, tally = self._samples.samples(*job)
        except ClipevalError as error:
            return error
        return images, tokens.numpy(), keys, tally


def _as_is(piece: Any) -> Any:
    return piece


class _FetchAhead:
    """Threads that fetch the remote shards of the blocks in use and of the next ones."""

    def __init__(self, samples: Samples, parts: Parts) -> None:
        self.reached = parts.start
        self._stopped = threading.Event()
        for source, units in samples.remote_units(parts):
            turn = threading.Lock()
            for _ in range(_FETCHES_AT_ONCE):
                threading.Thread(target=self._fetch, args=(source, units, turn), daemon=True).start()

    def stop(self) -> None:
        """Let the threads end after the shard they are at."""
        self._stopped.set()

    def _fetch(self, source: Any, units: Iterator[tuple[int, int]], turn: threading.Lock) -> None:
        while True:
            with turn:
                position, unit = next(units, (0, None))
                while self.reached < position and not self._stopped.wait(_POLL_SECONDS):
                    pass
            if unit is None or self._stopped.is_set():
                return
            with contextlib.suppress(ClipevalError):  # who reads the shard meets the same error, and reports it
                source.fetch(unit)

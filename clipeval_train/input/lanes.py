"""The order of samples in lanes: which ranks need which shards, with one stream for any number of ranks."""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterator, Sequence

import numpy as np

from clipeval.errors import UsageError
from clipeval_train.input.order import Order


class Lanes:
    """An ``Order`` for each of several lanes, side by side in every batch.

    Lane l has the l-th of equal parts of each source, in whole units but where a part begins or ends, and of every
    ``batch_size`` positions from a multiple of it the l-th of equal parts. So a rank that has the r-th part of the
    batches needs the units of its own lanes only, and the stream is the same for any number of ranks. (MosaicML
    Streaming has this idea as ``num_canonical_nodes``.) A single lane is an ``Order`` of all.

    What ``Order`` promises holds for each lane, and no ``batch_size`` positions in a row hold a sample twice.
    """

    def __init__(
        self, units: Sequence[np.ndarray], weights: Sequence[float], batch_size: int, seed: int, lanes: int
    ) -> None:
        """As ``Order``; ``batch_size`` is a multiple of ``lanes``. Raises UsageError as there."""
        self._batch_size, self._width = batch_size, batch_size // lanes
        begins = np.cumsum([0, *(sizes.sum() for sizes in units)])
        parts = [
            _parts(sizes, begin, [seed, s], lanes) for s, (sizes, begin) in enumerate(zip(units, begins, strict=False))
        ]
        self._lanes: list[_Lane] = []
        for lane in range(lanes):
            own = (
                seed if lanes == 1 else int(np.random.SeedSequence([seed, lanes, lane]).generate_state(1, np.uint64)[0])
            )
            try:
                self._lanes.append(_Lane([part[lane] for part in parts], weights, self._width, own, lanes))
            except UsageError as error:
                raise UsageError(f"{error} That is in each of {lanes} lanes." if lanes > 1 else str(error)) from error

    def take(self, start: int, stop: int) -> np.ndarray:
        """``[stop - start]`` int64: the samples at these positions, numbered through all sources in order."""
        found = [self._lanes[lane].take(first, last) for lane, first, last in self._stretches(start, stop)]
        return np.concatenate(found) if found else np.empty(0, np.int64)

    def substitutes(self, position: int) -> np.ndarray:
        """As ``Order.substitutes``, from the same lane."""
        ((lane, first, _),) = self._stretches(position, position + 1)
        return self._lanes[lane].substitutes(first)

    def units(
        self, source: int, start: int, stop: int, batch_size: int, rank: int, world_size: int
    ) -> Iterator[tuple[int, int]]:
        """The units of a source that a rank reads in the batches of [start, stop), in the order in which it needs them,
        each with the stream position from which on it should be fetched: where the block before its own begins.

        Those of all lanes where ranks do not have lanes of their own.
        """
        lanes = range(len(self._lanes))
        if len(lanes) % world_size == 0 and batch_size == self._batch_size and start % batch_size == 0:
            own = len(lanes) // world_size
            lanes = lanes[rank * own : (rank + 1) * own]
        rows = start // self._batch_size, -(-stop // self._batch_size)
        return heapq.merge(*(self._ahead(lane, source, *rows) for lane in lanes), key=lambda unit: unit[0])

    def _ahead(self, lane: int, source: int, row: int, end: int) -> Iterator[tuple[int, int]]:
        before = row
        for first, units in self._lanes[lane].blocks(source, row * self._width, end * self._width):
            for unit in random.SystemRandom().sample(units.tolist(), len(units)):  # ranks of a machine share the work
                yield before * self._batch_size, unit
            before = first // self._width

    def _stretches(self, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """The stretches of lanes that make up a stretch of the stream, in its order."""
        while start < stop:
            row, place = divmod(start, self._batch_size)
            lane, inside = divmod(place, self._width)
            count = min(self._width - inside, stop - start)
            first = row * self._width + inside
            yield lane, first, first + count
            start += count


class _Lane:
    """The order of what a lane has, in the numbers of all sources."""

    def __init__(
        self, parts: Sequence[_Part], weights: Sequence[float], batch_size: int, seed: int, lanes: int
    ) -> None:
        self._order = Order([counts for _, _, counts in parts], weights, batch_size, seed, lanes)
        self._units = [units for units, _, _ in parts]
        counts = np.concatenate([counts for _, _, counts in parts])
        self._ends = np.cumsum(counts)
        self._shift = np.concatenate([firsts for _, firsts, _ in parts]) - (self._ends - counts)

    def take(self, start: int, stop: int) -> np.ndarray:
        return self._numbered(self._order.take(start, stop))

    def substitutes(self, position: int) -> np.ndarray:
        return self._numbered(self._order.substitutes(position))

    def blocks(self, source: int, start: int, stop: int) -> Iterator[tuple[int, np.ndarray]]:
        for position, units in self._order.blocks(source, start, stop):
            yield position, self._units[source][units]

    def _numbered(self, samples: np.ndarray) -> np.ndarray:
        return samples + self._shift[np.searchsorted(self._ends, samples, side="right")]


_Part = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Units, and of each the number of its first sample here and how many there are."""


def _parts(sizes: np.ndarray, begin: int, seed: list[int], lanes: int) -> list[_Part]:
    """A source whose samples are numbered from ``begin`` in equal parts, one sample more or less."""
    sizes = np.asarray(sizes, np.int64)
    firsts = begin + np.cumsum(sizes) - sizes
    if lanes == 1:
        return [(np.arange(len(sizes)), firsts, sizes)]
    units = np.random.default_rng([*seed, lanes]).permutation(len(sizes))
    ends = np.cumsum(sizes[units])
    found = []
    for lane in range(lanes):
        low, high = (int(ends[-1]) * border // lanes for border in (lane, lane + 1))
        inside = np.arange(np.searchsorted(ends, low, side="right"), np.searchsorted(ends, high, side="left") + 1)
        inside = inside[: len(inside) if high > low else 0]
        from_, to = np.maximum(ends[inside] - sizes[units[inside]], low), np.minimum(ends[inside], high)
        skipped = from_ - (ends[inside] - sizes[units[inside]])
        found.append((units[inside], firsts[units[inside]] + skipped, to - from_))
    return found

"""Which sample comes when: an endless order over one or several sources, addressed by position."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from clipeval.errors import UsageError

_CYCLE = 1000
"""Sources alternate in a fixed pattern of this length, so weights are kept to 1/1000."""
_BLOCK = 1 << 17
"""Fewest samples that are shuffled together, over all lanes, where a source has more: about 13 shards of 10,000."""


@dataclass(frozen=True)
class _Pass:
    """One pass over a source: its units in their order, cut into blocks."""

    units: np.ndarray
    first_unit: np.ndarray
    """Per block, the place in ``units`` where it begins, and the end."""
    first_sample: np.ndarray
    """Per block, the place in the pass where it begins, and the end."""


class Order:
    """The order of samples, a pure function of the seed: any stretch can be asked for at any time.

    A source is a list of units (shards), read without replacement in passes. For every pass the units are shuffled and
    taken together to blocks, and the samples of a block are shuffled: a unit is needed during one block only, and
    memory does not grow with the source. Any ``batch_size`` positions in a row hold different samples, across the
    border of two passes too: contrastive learning would take the second copy for a negative.
    """

    def __init__(
        self, units: Sequence[np.ndarray], weights: Sequence[float], batch_size: int, seed: int, lanes: int = 1
    ) -> None:
        """``units[s]`` are the sizes of the units of source s, which is drawn in proportion to ``weights[s]``. So many
        ``lanes`` are read side by side.

        Raises UsageError when a source is too small for the batch or its weight rounds to nothing.
        """
        self._arguments = (units, weights, batch_size, seed, lanes)
        self._units = [np.asarray(sizes, np.int64) for sizes in units]
        self._sizes = np.array([sizes.sum() for sizes in self._units])
        self._offsets = np.concatenate([[0], np.cumsum(self._sizes)])
        self._batch_size, self._seed = batch_size, seed
        self._block = max(_BLOCK // lanes, 8 * batch_size)
        self._shares = _shares(weights)
        pattern = np.repeat(np.arange(len(units)), self._shares)
        self._pattern = np.random.default_rng([seed, len(units)]).permutation(pattern)
        self._reach = [self._kept_apart(source) for source in range(len(units))]
        drawn = self._pattern[:, None] == np.arange(len(units))
        self._rank = (np.cumsum(drawn, axis=0) - 1)[np.arange(_CYCLE), self._pattern]
        self._pass = lru_cache(maxsize=2 * len(units))(self._planned_pass)
        self._samples = lru_cache(maxsize=3 * len(units))(self._ordered_block)

    def __reduce__(self) -> tuple[type[Order], tuple[Any, ...]]:
        return Order, self._arguments  # the caches cannot be pickled, and spawned workers fill their own

    def take(self, start: int, stop: int) -> np.ndarray:
        """``[stop - start]`` int64: the samples at these positions, numbered through all sources in order."""
        source, drawn_before = self._drawn(start, stop)
        samples = np.empty(stop - start, np.int64)
        number, place = np.divmod(drawn_before, self._sizes[source])
        for s, n in set(zip(source.tolist(), number.tolist(), strict=True)):
            mine = np.flatnonzero((source == s) & (number == n))
            borders = self._pass(s, n).first_sample
            block = np.searchsorted(borders, place[mine], side="right") - 1
            for b in set(block.tolist()):
                here = mine[block == b]
                samples[here] = self._samples(s, n, b)[place[here] - borders[b]]
        return samples

    def substitutes(self, position: int) -> np.ndarray:
        """Samples that may stand in for the one at ``position``, best first; a function of seed and position alone.

        They come from the same block, so their shards are at hand. None of them is planned less than ``batch_size``
        positions away, and no two positions that can share a batch have one in common: candidates of a position agree
        with its rank in its source modulo the draws within which none comes twice.
        """
        source, drawn_before = (int(values[0]) for values in self._drawn(position, position + 1))
        number, place = divmod(drawn_before, int(self._sizes[source]))
        block = int(np.searchsorted(self._pass(source, number).first_sample, place, side="right")) - 1
        samples = self._samples(source, number, block)
        reach = self._reach[source]
        candidates = samples[samples % reach == drawn_before % reach]
        near = self.take(max(0, position - self._batch_size + 1), position + self._batch_size)
        return candidates[~np.isin(candidates, near)]

    def blocks(self, source: int, start: int, stop: int) -> Iterator[tuple[int, np.ndarray]]:
        """The blocks of a source in turn: the stream position in [start, stop) where one begins, and its units."""
        share = int(self._shares[source])
        before = np.flatnonzero(self._pattern == source)  # position in a cycle of each of the source's draws
        draw = start // _CYCLE * share + int(np.searchsorted(before, start % _CYCLE))
        while (position := draw // share * _CYCLE + int(before[draw % share])) < stop:
            number, place = divmod(draw, int(self._sizes[source]))
            plan = self._pass(source, number)
            block = int(np.searchsorted(plan.first_sample, place, side="right")) - 1
            yield position, plan.units[plan.first_unit[block] : plan.first_unit[block + 1]]
            draw += int(plan.first_sample[block + 1]) - place

    def _drawn(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Per position its source, and how often that source was drawn before."""
        cycle, within = np.divmod(np.arange(start, stop), _CYCLE)
        source = self._pattern[within]
        return source, cycle * self._shares[source] + self._rank[within]

    def _kept_apart(self, source: int) -> int:
        """Within how many draws from a source none may come twice: as many as a batch can hold; where the source has
        room for it, a whole batch. Raises UsageError for a source too small for that."""
        cycles, rest = divmod(self._batch_size, _CYCLE)
        drawn = np.concatenate([[0], np.cumsum(np.tile(self._pattern == source, 2))])
        most = cycles * int(self._shares[source]) + int(np.max(drawn[rest:][:_CYCLE] - drawn[:_CYCLE]))
        size = int(self._sizes[source])
        if size < 4 * most:
            raise UsageError(
                f"data[{source}]: {size} samples are too few for batch_size {self._batch_size}, of which up to {most} "
                f"come from here: at least {4 * most} keep repeats out of a batch. Lower batch_size or its weight, or "
                "add data."
            )
        return self._batch_size if size >= 4 * self._batch_size else most

    def _planned_pass(self, source: int, number: int) -> _Pass:
        sizes = self._units[source]
        units = np.random.default_rng([self._seed, source, number]).permutation(len(sizes))
        ends = np.cumsum(sizes[units])
        first_unit, first_sample = [0], [0]
        for unit, end in enumerate(ends[:-1].tolist(), start=1):
            if end - first_sample[-1] >= self._block and ends[-1] - end >= self._block:
                first_unit.append(unit)
                first_sample.append(end)
        return _Pass(units, np.array([*first_unit, len(units)]), np.array([*first_sample, ends[-1]]))

    def _ordered_block(self, source: int, number: int, block: int) -> np.ndarray:
        """The samples of a block, the previous pass's last ones not early.

        Only the first half of a pass's first block differs from the shuffle, so the end of each pass is known without
        the one before.
        """
        order = self._shuffled(source, number, block)
        reach = self._reach[source]
        if block or number == 0 or reach == 1:
            return order
        recent = self._shuffled(source, number - 1, -1)[1 - reach :]
        half = len(order) // 2
        early = order[:half]
        late = np.isin(early, recent)
        return np.concatenate([early[~late], early[late], order[half:]])

    def _shuffled(self, source: int, number: int, block: int) -> np.ndarray:
        plan, sizes = self._pass(source, number), self._units[source]
        block %= len(plan.first_unit) - 1
        units = plan.units[plan.first_unit[block] : plan.first_unit[block + 1]]
        begins = self._offsets[source] + (np.cumsum(sizes) - sizes)[units]
        counts = sizes[units]
        inside = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        samples = np.repeat(begins, counts) + inside
        return np.random.default_rng([self._seed, source, number, block]).permutation(samples)


def _shares(weights: Sequence[float]) -> np.ndarray:
    """Positions of a cycle per source, by largest remainder."""
    exact = np.array(weights) / np.sum(weights) * _CYCLE
    shares = np.floor(exact).astype(np.int64)
    missing = _CYCLE - int(shares.sum())
    shares[np.argsort(shares - exact, kind="stable")[:missing]] += 1
    if (shares == 0).any():
        position = int(np.argmin(shares))
        raise UsageError(f"data[{position}].weight: {weights[position]} is less than 1/{_CYCLE} of all weights.")
    return shares

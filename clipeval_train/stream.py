"""Which sample comes when: an endless order over one or several sources, addressed by position."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from clipeval.errors import UsageError

_CYCLE = 1000
"""Sources alternate in a fixed pattern of this length, so weights are kept to 1/1000."""


class Stream:
    """The order of samples, a pure function of the seed: any stretch can be asked for at any time.

    Within a source samples come without replacement, reshuffled for every pass, and any ``batch_size`` positions in a
    row hold different samples, across the border of two passes too: contrastive learning would take the second copy
    for a negative.
    """

    def __init__(self, sizes: Sequence[int], weights: Sequence[float], batch_size: int, seed: int) -> None:
        """``sizes[s]`` samples in source s, drawn in proportion to ``weights[s]``.

        Raises UsageError when a source is too small for the batch or its weight rounds to nothing.
        """
        self._sizes, self._gap, self._seed = np.array(sizes), batch_size - 1, seed
        self._offsets = np.cumsum([0, *sizes[:-1]])
        for position, size in enumerate(sizes):
            if size < 4 * batch_size:
                raise UsageError(
                    f"data[{position}]: {size} samples are too few for batch_size {batch_size}: at least "
                    f"{4 * batch_size} keep repeats out of a batch. Lower batch_size or add data."
                )
        self._shares = _shares(weights)
        pattern = np.repeat(np.arange(len(sizes)), self._shares)
        self._pattern = np.random.default_rng([seed, len(sizes)]).permutation(pattern)
        drawn = self._pattern[:, None] == np.arange(len(sizes))
        self._rank = (np.cumsum(drawn, axis=0) - 1)[np.arange(_CYCLE), self._pattern]
        self._order = lru_cache(maxsize=2 * len(sizes))(self._shuffled)

    def take(self, start: int, stop: int) -> np.ndarray:
        """``[stop - start]`` int64: the samples at these positions, numbered through all sources in order."""
        cycle, within = np.divmod(np.arange(start, stop), _CYCLE)
        source = self._pattern[within]
        drawn_before = cycle * self._shares[source] + self._rank[within]
        samples = np.empty(stop - start, np.int64)
        number, position = np.divmod(drawn_before, self._sizes[source])
        for s, n in set(zip(source.tolist(), number.tolist(), strict=True)):
            mine = (source == s) & (number == n)
            samples[mine] = self._offsets[s] + self._order(s, n)[position[mine]]
        return samples

    def _shuffled(self, source: int, number: int) -> np.ndarray:
        """The order of pass ``number``: a permutation in which the previous pass's last samples do not come early."""
        order = self._permutation(source, number)
        if number == 0 or self._gap == 0:
            return order
        recent = self._permutation(source, number - 1)[-self._gap :]
        half = (
            len(order) // 2
        )  # the second half stays as drawn, so the end of each pass is known without the one before
        early = order[:half]
        late = np.isin(early, recent)
        return np.concatenate([early[~late], early[late], order[half:]])

    def _permutation(self, source: int, number: int) -> np.ndarray:
        return np.random.default_rng([self._seed, source, number]).permutation(self._sizes[source])


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

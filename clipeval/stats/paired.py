"""Two checkpoints on the same samples: how far apart they are, and how sure that is.

Each side is read once, as ``Scored``; two of them are compared as often as one likes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np

from clipeval import metrics
from clipeval.stats import noninferiority
from clipeval.stats.intervals import (
    Interval,
    bootstrap_weights,
    paired_interval,
    percentile_interval,
    resampled_counts,
    resampled_means,
)
from clipeval.stats.scored import OtherSamplesError, Scored, labels_of, mean_precisions, value_of, weights
from clipeval.stats.significance import bootstrap_p, mcnemar_p

DRAWS = 9_999
MCNEMAR, BOOTSTRAP, NORMAL = "exact McNemar", "paired bootstrap", "normal"


@dataclass(frozen=True, eq=False)
class Paired:
    """``first`` minus ``second`` in the metric's own unit, or the reverse where lower is better: positive where the
    second is worse, a drop.

    ``lost`` and ``won`` count the samples (captions, where it is of them) that are better in the first and in the
    second, of ``n``; of metrics of ranks and of F1 every sample with another outcome is in ``lost``. ``draw(seed)``
    gives ``[DRAWS]`` bootstrapped differences. ``units`` ``[units]`` are independent, one per sample or image of
    ``unit_ids``, with the difference as their mean; None where it is no mean. ``parts`` are the differences that this
    one is the mean of, if they are of other samples each.
    """

    difference: float
    test: str
    lost: int
    won: int
    n: int
    draw: Callable[[int], np.ndarray]
    units: np.ndarray | None = None
    unit_ids: np.ndarray | None = None
    parts: tuple[Paired, ...] = ()

    @cached_property
    def p(self) -> float:
        """One-sided: the chance of such a loss if there was none to find."""
        return self._p(1)

    @property
    def p_two_sided(self) -> float:
        """The chance of such a difference, in either direction, if there was none."""
        return min(1.0, 2 * min(self.p, self._p(-1)))

    @property
    def interval(self) -> Interval:
        """The 95 % interval of the difference."""
        if self.test == MCNEMAR:
            return paired_interval(self.lost, self.won, self.n)
        return percentile_interval(self._draws)

    def limits(self, level: float) -> Interval:
        """The smallest and the largest difference that no one-sided test of this level excludes: Tango's score test
        where McNemar's is the test of none, else by ``variance``."""
        if self.test == MCNEMAR:
            high = noninferiority.drop_limit([self.lost, self.won], [self.won, self.lost], self.n, level)
        else:
            high = noninferiority.normal_limit(np.array([1, -1]) * self.difference, self.variance, level)
        return -float(high[1]), float(high[0])

    def p_beyond(self, margin: float) -> float:
        """The chance of such a loss if it was ``margin`` in truth, by the same test as ``limits``."""
        if self.test == MCNEMAR:
            return noninferiority.score_p(self.lost, self.won, self.n, margin).item()
        return noninferiority.beyond(self.difference, self.variance, margin).item()

    @cached_property
    def variance(self) -> float:
        """Variance of the difference, with one unit more that differs. Data sets are independent of each other."""
        if self.parts:
            return float(sum(part.variance for part in self.parts)) / len(self.parts) ** 2
        if self.units is None:
            return float(self._draws.var()) + 1 / self.n**2
        n = len(self.units)
        return float((self.units @ self.units + 1) / n - self.units.mean() ** 2) / n

    @cached_property
    def variance_if_equal(self) -> float:
        """What the variance would be of two checkpoints that differ on as many samples and are equally good."""
        if self.parts:
            return float(sum(part.variance_if_equal for part in self.parts)) / len(self.parts) ** 2
        if self.units is None:
            return self.variance
        return float(max(self.units @ self.units, 1)) / len(self.units) ** 2

    def _p(self, sign: int) -> float:
        if self.test == MCNEMAR:
            return mcnemar_p(*((self.lost, self.won) if sign > 0 else (self.won, self.lost))).item()
        if not sign * self.difference > 0:
            return 1.0
        if self.test == NORMAL:
            return noninferiority.beyond(sign * self.difference, self.variance, 0).item()
        return bootstrap_p(sign * self._draws, sign * self.difference, self.lost + self.won)

    @cached_property
    def _draws(self) -> np.ndarray:
        return self.draw(0)


def compare(first: Scored, second: Scored) -> Paired:
    """Compare two checkpoints on one metric, their samples in any order. Raises OtherSamplesError.

    0/1 outcomes of independent samples: McNemar's exact test, with the interval of Bonett and Price. Others by a
    bootstrap over samples, the same for both: mean per-class recall, mean average precision, F1, the worst group, whose
    groups are resampled each for itself, and recall of captions, which is resampled by image as the captions of an
    image are not independent.
    """
    second = _aligned(first, second)
    known = first.metric
    if known.lower:
        first, second = second, first
    if known.scored in _COMPARED:
        return _COMPARED[known.scored](first, second)
    differences = (first.outcomes - second.outcomes) * weights(first)
    lost, won, n = int((differences > 0).sum()), int((differences < 0).sum()), len(differences)
    units, ids = differences, first.ids.to_numpy(str)
    if known.direction == "text_to_image":
        ids, image = first.images
        units = _by_image(differences, image)
    test = MCNEMAR if known.scored == "samples" and len(units) == n else BOOTSTRAP
    return Paired(
        float(differences.mean()), test, lost, won, n, partial(resampled_means, units, draws=DRAWS), units, ids
    )


def average(parts: Sequence[Paired]) -> Paired:
    """The mean of a metric over data sets, which are independent of each other: its error is taken for normal."""

    def draw(seed: int) -> np.ndarray:
        return np.mean([part.draw(seed + number) for number, part in enumerate(parts)], axis=0)

    difference = float(np.mean([part.difference for part in parts]))
    return Paired(difference, NORMAL, *_counts(parts), draw, parts=tuple(parts))


def together(parts: Sequence[Paired]) -> Paired:
    """The mean of several metrics of one data set, whose errors are not independent: image by image. Raises
    OtherSamplesError where they are of other images."""
    if len(parts) == 1:
        return parts[0]
    (ids, _), *others = found = [_in_order(part) for part in parts]
    if any(not np.array_equal(ids, names) for names, _ in others):
        raise OtherSamplesError("metrics that are averaged are of other images")
    units = np.mean([values for _, values in found], axis=0)
    draw = partial(resampled_means, units, draws=DRAWS)
    return Paired(float(units.mean()), BOOTSTRAP, *_counts(parts), draw, units, ids)


def _in_order(part: Paired) -> tuple[np.ndarray, np.ndarray]:
    """Ids, sorted, and what belongs to them."""
    if part.units is None or part.unit_ids is None:
        raise OtherSamplesError("metrics that are averaged have no value per image")
    order = np.argsort(part.unit_ids)
    return part.unit_ids[order], part.units[order]


def _counts(parts: Sequence[Paired]) -> tuple[int, int, int]:
    return sum(part.lost for part in parts), sum(part.won for part in parts), sum(part.n for part in parts)


def _aligned(first: Scored, second: Scored) -> Scored:
    """The second in the order of the first."""
    if not first.ids.equals(second.ids):
        order = second.ids.get_indexer(first.ids)
        missing = int((order < 0).sum())
        new = len(second.ids) - (len(order) - missing)
        if missing or new:
            of = f"{missing} of {len(first.ids)}"
            raise OtherSamplesError(f"sample ids: {of} of the baseline are not here, {new} are new")
        second = second.ordered(order)
    if first.labels is not None and second.labels is not None and not np.array_equal(first.labels, second.labels):
        raise OtherSamplesError("samples of the same id have other labels")
    return second


def _by_image(differences: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Differences ``[captions]`` to one value per image whose mean is the same: the ratio of sums, linearised (Cochran
    1977, Sampling Techniques, section 6.3)."""
    sums, counts = np.bincount(images, weights=differences), np.bincount(images)
    mean = differences.mean()
    return np.round(mean + (sums - mean * counts) / counts.mean(), 12)


def _compared_ranks(first: Scored, second: Scored) -> Paired:
    def draw(seed: int) -> np.ndarray:
        blocks = bootstrap_weights(len(first.ids), seed, DRAWS)
        return np.concatenate([mean_precisions(first, w) - mean_precisions(second, w) for w in blocks])

    other = int((first.outcomes != second.outcomes).any(axis=1).sum())
    return Paired(value_of(first) - value_of(second), BOOTSTRAP, other, 0, len(first.ids), draw)


def _compared_f1(first: Scored, second: Scored) -> Paired:
    rows = np.stack([labels_of(first), first.outcomes, second.outcomes], axis=1)
    kinds, counts = np.unique(rows, axis=0, return_counts=True)
    labels, before, now = kinds.T

    def draw(seed: int) -> np.ndarray:
        blocks = resampled_counts(counts, seed, DRAWS)
        return np.concatenate([metrics.macro_f1(labels, before, w) - metrics.macro_f1(labels, now, w) for w in blocks])

    other = int((first.outcomes != second.outcomes).sum())
    return Paired(value_of(first) - value_of(second), BOOTSTRAP, other, 0, len(rows), draw)


def _compared_groups(first: Scored, second: Scored) -> Paired:
    _, group = np.unique(labels_of(first), return_inverse=True)
    kinds = np.bincount(4 * group + (2 * first.outcomes + second.outcomes).astype(int), minlength=4 * (group.max() + 1))
    per_group = kinds.reshape(-1, 4)  # samples that are wrong in both, right in the second, in the first, in both

    def draw(seed: int) -> np.ndarray:
        generator = np.random.default_rng(seed)
        lowest = np.full((2, DRAWS), np.inf)
        for counts in per_group:
            drawn = generator.multinomial(counts.sum(), counts / counts.sum(), DRAWS)
            right = np.stack([drawn[:, 2] + drawn[:, 3], drawn[:, 1] + drawn[:, 3]])
            lowest = np.minimum(lowest, right / counts.sum())
        return lowest[0] - lowest[1]

    lost, won = int(per_group[:, 2].sum()), int(per_group[:, 1].sum())
    return Paired(value_of(first) - value_of(second), BOOTSTRAP, lost, won, len(group), draw)


_COMPARED = {"ranks": _compared_ranks, "f1": _compared_f1, "groups": _compared_groups}

"""Two checkpoints on the same samples: how far apart they are, and how sure that is.

Each side is read once, as ``Scored``; two of them are compared as often as one likes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING

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
from clipeval.stats.significance import bootstrap_p, mcnemar_p
from clipeval.vocabulary import Metric, metric

if TYPE_CHECKING:
    import pandas as pd

DRAWS = 9_999
_AGREE = 1e-6
MCNEMAR, BOOTSTRAP, NORMAL = "exact McNemar", "paired bootstrap", "normal"


class NotPairedError(Exception):
    """No test is possible; the message says why."""


class OtherSamplesError(NotPairedError):
    """The two checkpoints were measured on different samples."""


@dataclass(frozen=True, eq=False)
class Scored:
    """The outcomes of one metric of one checkpoint: ``outcomes`` ``[n]`` 0/1, of shares between 0 and 1, of F1 the
    predicted classes, or ``[n, K]`` scores where it is one of ranks; ``labels`` ``[n]``, of groups their numbers, or
    ``[n, K]`` bool, None where there are none; ``ids`` ``[n]``, no two alike."""

    metric: Metric
    ids: pd.Index
    outcomes: np.ndarray
    labels: np.ndarray | None

    @cached_property
    def images(self) -> tuple[np.ndarray, np.ndarray]:
        """The ids of the images, sorted, and for each of ``[n]`` captions the number of its own. A caption's id is the
        image's, ``#`` and a number."""
        return np.unique(self.ids.str.replace(r"#\d+$", "", regex=True).to_numpy(str), return_inverse=True)

    def ordered(self, order: np.ndarray) -> Scored:
        """The samples at ``order``."""
        labels = None if self.labels is None else self.labels[order]
        return Scored(self.metric, self.ids[order], self.outcomes[order], labels)


def scored(name: str, frame: pd.DataFrame, value: float) -> Scored:
    """The outcomes of the metric ``name`` in the per-sample file ``frame``, whose value in the table is ``value``.

    Raises NotPairedError where there are none, or where they give another value than the table has, and
    OtherSamplesError for repeated sample ids.
    """
    known = metric(name)
    if "id" not in frame or (known.direction and "direction" not in frame):
        raise NotPairedError(f"there are no per-sample outcomes of {name}")
    if known.direction:
        frame = frame[(frame["direction"] == known.direction).to_numpy(bool)]
    frame = frame.set_index(frame["id"].astype(str))
    if not frame.index.is_unique:
        raise OtherSamplesError("sample ids are repeated")
    try:
        found = _ranked(known, frame) if known.scored == "ranks" else _outcomes(known, frame)
    except (TypeError, ValueError) as error:
        raise NotPairedError(f"the per-sample outcomes of {name} are not readable: {error}") from error
    mean = _value(found)
    if not abs(mean - value) <= _AGREE:  # NaN does not agree either
        raise NotPairedError(f"the per-sample outcomes give {mean:.6f}, the table says {value:.6f}")
    return found


def _outcomes(known: Metric, frame: pd.DataFrame) -> Scored:
    told_apart = known.group or "label"
    needed = {known.column, *([told_apart] if known.scored in ("classes", "groups", "f1") else [])}
    if not known.column or not needed <= set(frame):
        raise NotPairedError(f"there are no per-sample outcomes of {known.name}")
    if known.scored == "shares":  # a sample that the metric is not about has none
        frame = frame[frame[known.column].notna().to_numpy(bool)]
    hits = frame[known.column].to_numpy(np.float64)
    if known.scored == "shares" and not ((hits >= 0) & (hits <= 1)).all():
        raise NotPairedError(f"the per-sample outcomes of {known.name} are not all between 0 and 1")
    if known.scored not in ("shares", "f1") and not np.isin(hits, (0, 1)).all():
        raise NotPairedError(f"the per-sample outcomes of {known.name} are not all 0 or 1")
    labels = frame[told_apart].to_numpy() if told_apart in frame else None
    if labels is not None and labels.dtype.kind not in "biuf":
        labels = labels.astype(str)
    return Scored(known, frame.index, hits, labels)


def _ranked(known: Metric, frame: pd.DataFrame) -> Scored:
    if not {"labels", "scores"} <= set(frame):
        raise NotPairedError("there are no scores per sample")
    scores, labels = (np.stack(list(frame[name])) for name in ("scores", "labels"))
    if scores.ndim != 2 or scores.shape != labels.shape:
        raise ValueError(f"scores {scores.shape} and labels {labels.shape} do not belong together")
    return Scored(known, frame.index, scores.astype(np.float64), labels.astype(bool))


def _value(side: Scored) -> float:
    if not len(side.ids):
        return float("nan")
    if side.metric.scored == "ranks":
        return float(_mean_precisions(side, np.ones((1, len(side.ids))))[0])
    if side.metric.scored == "f1":
        return float(metrics.macro_f1(_labels(side), side.outcomes, np.ones((1, len(side.ids))))[0])
    if side.metric.scored == "groups":
        hits, counts = metrics.hits_per_class(side.outcomes, _labels(side))
        return float((hits / counts).min())
    return float(np.mean(side.outcomes * _weights(side)))


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
    differences = (first.outcomes - second.outcomes) * _weights(first)
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


def _weights(side: Scored) -> np.ndarray:
    """Weights ``[n]`` of mean 1 with which the mean over samples is the metric."""
    if side.metric.scored != "classes" or side.labels is None:
        return np.ones(len(side.ids))
    _, index, counts = np.unique(side.labels, return_inverse=True, return_counts=True)
    return len(index) / (len(counts) * counts[index])


def _by_image(differences: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Differences ``[captions]`` to one value per image whose mean is the same: the ratio of sums, linearised (Cochran
    1977, Sampling Techniques, section 6.3)."""
    sums, counts = np.bincount(images, weights=differences), np.bincount(images)
    mean = differences.mean()
    return np.round(mean + (sums - mean * counts) / counts.mean(), 12)


def _mean_precisions(side: Scored, weights: np.ndarray) -> np.ndarray:
    """``[draws]``: mean average precision under ``weights`` ``[draws, n]``."""
    assert side.labels is not None
    classes = np.flatnonzero(side.labels.any(axis=0))
    order = [np.argsort(-side.outcomes[:, k], kind="stable") for k in classes]
    found = np.array(
        [metrics.average_precision(side.labels[o, k], weights[:, o]) for k, o in zip(classes, order, strict=True)]
    ).reshape(len(classes), len(weights))
    defined = ~np.isnan(found)  # a draw may hold no positive of a class
    return np.where(defined, found, 0).sum(axis=0) / np.maximum(defined.sum(axis=0), 1)


def _compared_ranks(first: Scored, second: Scored) -> Paired:
    def draw(seed: int) -> np.ndarray:
        blocks = bootstrap_weights(len(first.ids), seed, DRAWS)
        return np.concatenate([_mean_precisions(first, w) - _mean_precisions(second, w) for w in blocks])

    other = int((first.outcomes != second.outcomes).any(axis=1).sum())
    return Paired(_value(first) - _value(second), BOOTSTRAP, other, 0, len(first.ids), draw)


def _compared_f1(first: Scored, second: Scored) -> Paired:
    rows = np.stack([_labels(first), first.outcomes, second.outcomes], axis=1)
    kinds, counts = np.unique(rows, axis=0, return_counts=True)
    labels, before, now = kinds.T

    def draw(seed: int) -> np.ndarray:
        blocks = resampled_counts(counts, seed, DRAWS)
        return np.concatenate([metrics.macro_f1(labels, before, w) - metrics.macro_f1(labels, now, w) for w in blocks])

    other = int((first.outcomes != second.outcomes).sum())
    return Paired(_value(first) - _value(second), BOOTSTRAP, other, 0, len(rows), draw)


def _compared_groups(first: Scored, second: Scored) -> Paired:
    _, group = np.unique(_labels(first), return_inverse=True)
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
    return Paired(_value(first) - _value(second), BOOTSTRAP, lost, won, len(group), draw)


_COMPARED = {"ranks": _compared_ranks, "f1": _compared_f1, "groups": _compared_groups}


def _labels(side: Scored) -> np.ndarray:
    assert side.labels is not None
    return side.labels

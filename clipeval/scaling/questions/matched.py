"""Two sources at the same design: the same architectures and numbers of samples seen, pair by pair."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from clipeval.results.columns import archs, numbers
from clipeval.scaling.laws.law import vary
from clipeval.scaling.points import Checkpoints
from clipeval.stats.significance import t_interval, two_sided_p

if TYPE_CHECKING:
    import pandas as pd

_SAMPLES_TOLERANCE = 0.1
"""Two numbers of samples seen count as the same design within 10 %: 12.8B, "13B" and 13.2B are one."""


@dataclass(frozen=True)
class Matched:
    """What pairs of checkpoints of the same design say. All intervals are 95 % Student t; NaN where n is too small.

    ``delta`` is the difference of exponents a - b, from a straight line through the pairwise differences of log error
    against log x (n - 2 degrees of freedom). ``ratio`` is the geometric mean of error a / error b (n - 1).
    """

    n: int
    delta: float
    delta_low: float
    delta_high: float
    p: float
    ratio: float
    ratio_low: float
    ratio_high: float


NONE = Matched(0, *([float("nan")] * 7))


def matched(a: Checkpoints, b: Checkpoints) -> Matched:
    """Compare two sources on pairs of the same architecture (either activation) and samples seen.

    Where a design has several candidates the pair with the most similar number of unique samples is taken, then that
    of the lowest error. Without architectures, samples seen, or with x of several columns there are no pairs.
    """
    pairs = _pairs(a, b)
    if not pairs:
        return NONE
    i, j = np.array(pairs).T
    log_x = (np.log(a.x[i]) + np.log(b.x[j])) / 2
    difference = np.log(a.error[i]) - np.log(b.error[j])
    delta, delta_se = _slope(log_x, difference)
    mean, mean_se = float(difference.mean()), _standard_error(difference)
    delta_low, delta_high = t_interval(delta, delta_se, len(pairs) - 2)
    low, high = t_interval(mean, mean_se, len(pairs) - 1)
    p = two_sided_p(delta, delta_se, len(pairs) - 2)
    return Matched(len(pairs), delta, delta_low, delta_high, p, *np.exp([mean, low, high]).tolist())


def _pairs(a: Checkpoints, b: Checkpoints) -> list[tuple[int, int]]:
    """Indices into a and b; each checkpoint is used at most once."""
    if a.x.ndim > 1 or not {"arch", "samples_seen"} <= set(a.table.columns):
        return []
    arch, samples, unique = (part[:, None] for part in _design(a.table))
    other_arch, other_samples, other_unique = _design(b.table)
    with np.errstate(divide="ignore", invalid="ignore"):  # a count of 0 is like no other
        alike = np.abs(np.log(samples / other_samples)) <= np.log1p(_SAMPLES_TOLERANCE)
        apart = np.nan_to_num(np.abs(np.log(unique / other_unique)), nan=np.inf, posinf=np.inf)
    i, j = np.nonzero(alike & (arch == other_arch) & (arch != ""))
    order = np.lexsort((j, i, a.error[i] + b.error[j], apart[i, j]))
    pairs: dict[int, int] = {}  # of a by b
    used: set[int] = set()
    for left, right in zip(i[order].tolist(), j[order].tolist(), strict=True):
        if left not in used and right not in pairs:
            used.add(left)
            pairs[right] = left
    return [(left, right) for right, left in pairs.items()]


def _design(table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Architectures, samples seen and unique samples ``[n]``."""
    unique = numbers(table, "unique_samples") if "unique_samples" in table else np.full(len(table), np.nan)
    return archs(table), numbers(table, "samples_seen"), unique


def _slope(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Least squares slope and its standard error; NaN where x does not vary or nothing is left to estimate it from."""
    if not vary(x[None, :, None], np.ones((1, len(x))))[0]:
        return float("nan"), float("nan")
    spread = float(np.sum((x - x.mean()) ** 2))
    slope = float(np.sum((x - x.mean()) * (y - y.mean())) / spread)
    if len(x) < 3:
        return slope, float("nan")
    residual = y - y.mean() - slope * (x - x.mean())
    return slope, float(np.sqrt(residual @ residual / (len(x) - 2) / spread))


def _standard_error(values: np.ndarray) -> float:
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("nan")

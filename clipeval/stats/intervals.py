"""95 % confidence intervals. All take and return proportions in [0, 1]."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

Interval = tuple[float, float]

Z_95 = 1.959963984540054
"""The 97.5 % quantile of the standard normal distribution."""
DRAWS = 1000
"""Bootstrap draws behind an interval."""
_CHUNK_ELEMENTS = 1 << 20


def wilson_interval(successes: float, n: float) -> Interval:
    """Wilson's score interval of a proportion (Wilson 1927, JASA 22:209), for ``n`` > 0 independent outcomes.

    ``n`` may be an effective sample size, and so not a whole number.
    """
    p = successes / n
    spread = Z_95**2 / n
    centre = (p + spread / 2) / (1 + spread)
    half = np.sqrt(spread * p * (1 - p) + spread**2 / 4) / (1 + spread)
    return float(max(centre - half, 0.0)), float(min(centre + half, 1.0))


def balanced_interval(hits: np.ndarray, counts: np.ndarray) -> Interval:
    """Interval of the mean of K class recalls ``hits[k] / counts[k]``, the class sizes taken as fixed.

    Wilson's interval at the mean p with an effective sample size n_eff = min(p (1 - p) / V, n_h), as for complex
    surveys (Dean and Pagano 2015, J. Survey Stat. Methodol. 3:484). V = sum_k v_k / K^2 estimates the variance of the
    mean, with v_k = p_k (1 - p_k) / (counts[k] - 1), or p (1 - p) in a class of one sample, which tells nothing of its
    own. n_h = K^2 / sum_k (1 / counts[k]) is n_eff if all class recalls are equal; as a bound it keeps the interval
    open where every estimated variance is zero, at the price of a wide one where class recalls differ very much.
    """
    recalls = hits / counts
    mean = float(recalls.mean())
    pooled = mean * (1 - mean)
    variances = np.where(counts > 1, recalls * (1 - recalls) / np.maximum(counts - 1, 1), pooled)
    variance = float(variances.mean()) / len(counts)
    effective = len(counts) / float(np.mean(1 / counts))
    if variance > 0:
        effective = min(effective, pooled / variance)
    return wilson_interval(mean * effective, effective)


def bootstrap_weights(n: int, seed: int, draws: int = DRAWS) -> Iterator[np.ndarray]:
    """``draws`` resamplings of ``n`` units with replacement, as counts: ``[some draws, n]`` float64 of bounded size.

    The counts of a row add up to ``n``. Floats, because they are meant for matrix products.
    """
    generator = np.random.default_rng(seed)
    rows = max(1, _CHUNK_ELEMENTS // n)
    for start in range(0, draws, rows):
        size = min(rows, draws - start)
        drawn = generator.integers(n, size=(size, n)) + n * np.arange(size)[:, None]
        yield np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n).astype(np.float64)


def percentile_interval(values: np.ndarray) -> Interval:
    """The 2.5 % and 97.5 % quantiles of bootstrapped values, those that are NaN left out."""
    low, high = np.nanquantile(values, (0.025, 0.975))
    return float(low), float(high)


def reflected_interval(value: float, values: np.ndarray) -> Interval:
    """Of a share that resampling moves to one side, as average precision: copies of a relevant sample share a rank.

    As far as resampled ``values`` lie above the ``value``, it lies above what it estimates: quantiles are reflected
    at it (the basic interval of Davison and Hinkley 1997, equation 5.6), within [0, 1] and so that it holds ``value``.
    """
    low, high = percentile_interval(values)
    return max(0.0, min(2 * value - high, value)), min(1.0, max(2 * value - low, value))


def clustered_intervals(hits: np.ndarray, counts: np.ndarray, seed: int) -> list[Interval]:
    """Intervals of proportions whose outcomes come in clusters, by a bootstrap over whole clusters.

    ``hits`` is ``[clusters, M]``, the successes per cluster for each of M proportions; ``counts`` is ``[clusters]``,
    the outcomes per cluster. Where all outcomes are equal the bootstrap cannot vary; there it is Wilson's interval
    with one outcome per cluster.
    """
    draws = [(weights @ hits) / (weights @ counts)[:, None] for weights in bootstrap_weights(len(counts), seed)]
    intervals = []
    for proportion, values in zip(hits.sum(axis=0) / counts.sum(), np.concatenate(draws).T, strict=True):
        if proportion in (0, 1):
            intervals.append(wilson_interval(proportion * len(counts), len(counts)))
        else:
            intervals.append(percentile_interval(values))
    return intervals


def worst_interval(hits: np.ndarray, counts: np.ndarray, seed: int) -> Interval:
    """Interval of the lowest of the shares ``hits[g] / counts[g]`` of groups, each resampled for itself.

    The lowest of several resampled shares is on average below the lowest share: where all draws lie on one side of it
    the interval ends there. Where the lowest share is 0 or 1, which cannot vary, it goes to the nearest bound of the
    groups' own intervals (``wilson_interval``).
    """
    shares = hits / counts
    lowest = float(shares.min())
    if lowest in (0.0, 1.0):
        own = [wilson_interval(*group) for group in zip(hits, counts, strict=True)]
        return min(low for low, _ in own), min(high for _, high in own)
    drawn = np.random.default_rng(seed).binomial(counts, shares, (DRAWS, len(counts))) / counts
    low, high = percentile_interval(drawn.min(axis=1))
    return min(low, lowest), max(high, lowest)


def mean_interval(values: np.ndarray, seed: int) -> Interval:
    """Interval of the mean of ``values`` ``[n]`` in [0, 1], by a bootstrap; where all are equal, which cannot vary,
    ``wilson_interval``."""
    if values.min() == values.max():
        return wilson_interval(float(values.sum()), len(values))
    return percentile_interval(resampled_means(values, seed, DRAWS))


def resampled_counts(counts: np.ndarray, seed: int, draws: int = DRAWS) -> Iterator[np.ndarray]:
    """How often each of several kinds of samples, of which there are ``counts``, comes in ``draws`` resamplings with
    replacement: ``[some draws, kinds]`` float64 of bounded size."""
    generator = np.random.default_rng(seed)
    n, rows = counts.sum(), max(1, _CHUNK_ELEMENTS // len(counts))
    for start in range(0, draws, rows):
        yield generator.multinomial(n, counts / n, min(rows, draws - start)).astype(np.float64)


def resampled_means(values: np.ndarray, seed: int, draws: int) -> np.ndarray:
    """``[draws]`` means of ``values`` ``[n]`` resampled with replacement. Only the distinct values cost time."""
    distinct, counts = np.unique(values, return_counts=True)
    return np.concatenate([drawn @ distinct / len(values) for drawn in resampled_counts(counts, seed, draws)])


def paired_interval(only_a: int, only_b: int, n: int) -> Interval:
    """95 % interval of the difference of two proportions of the same ``n`` samples, of which ``only_a`` and ``only_b``
    are right in one alone: the adjusted Wald interval of Bonett and Price (2012, J. Educ. Behav. Stat. 37:479), z times
    the standard error after one more discordant sample on either side."""
    more, less = (only_a + 1) / (n + 2), (only_b + 1) / (n + 2)
    centre = more - less
    half = Z_95 * np.sqrt((more + less - centre**2) / (n + 2))
    return float(max(centre - half, -1.0)), float(min(centre + half, 1.0))

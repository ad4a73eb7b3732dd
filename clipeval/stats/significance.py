"""Is it more than chance? Tests of differences and their correction for being many. Pure functions of numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

WELCH, COCHRAN_COX = "Welch", "Cochran and Cox"
_ENOUGH_FREEDOM = 4
_NAN = float("nan")


@dataclass(frozen=True)
class Difference:
    """An estimate of a minus that of b, a 95 % interval, the p value of equality, by which ``test``, and Welch's p."""

    delta: float = _NAN
    low: float = _NAN
    high: float = _NAN
    p: float = _NAN
    test: str = ""
    p_welch: float = _NAN


def mcnemar_p(lost: npt.ArrayLike, won: npt.ArrayLike) -> np.ndarray:
    """One-sided p value of McNemar's exact test (McNemar 1947, Psychometrika 12:153).

    Of the samples that two checkpoints score differently, ``lost`` were right before and ``won`` are right now. The
    chance of at least as many losses if either were as likely: P(X >= lost) for X ~ Binomial(lost + won, 1/2).
    """
    from scipy.special import bdtrc

    return np.where(np.greater(lost, 0), bdtrc(np.maximum(lost, 1) - 1, np.add(lost, won), 0.5), 1.0)


def bootstrap_p(draws: np.ndarray, observed: float, discordant: int) -> float:
    """One-sided p value of "the mean is not above 0", from ``draws`` of a mean that was ``observed``.

    The share of draws that lie as far above the observed mean as that lies above 0: the bootstrap moved to the null
    hypothesis (Davison and Hinkley 1997, section 4.4). Beyond the resolution of the draws it is the normal tail with
    their standard deviation. It is never below 2^-discordant, the chance that as many differing pairs all differ in
    the same direction.
    """
    from scipy.special import ndtr

    if not observed > 0:
        return 1.0
    beyond = int(np.count_nonzero(draws - observed >= observed * (1 - 1e-9)))
    p = (1 + beyond) / (1 + len(draws))
    spread = float(draws.std())
    if beyond == 0:
        p = min(p, float(ndtr(-observed / spread))) if spread > 0 else 0.0
    return max(p, 0.5**discordant)


def holm(p: np.ndarray) -> np.ndarray:
    """Holm's step-down correction (1979, Scand. J. Stat. 6:65) of ``p`` ``[..., m]``; NaNs stay and do not count."""
    order = np.argsort(p, axis=-1)  # NaNs come last
    left = np.sum(~np.isnan(p), axis=-1, keepdims=True) - np.arange(p.shape[-1])
    steps = np.minimum(np.maximum.accumulate(np.take_along_axis(p, order, -1) * left, axis=-1), 1.0)
    corrected = np.empty(p.shape)
    np.put_along_axis(corrected, order, steps, -1)
    return corrected


def t_interval(centre: float, se: float, df: float) -> tuple[float, float]:
    """95 % interval of Student's t; NaN bounds where there is no standard error."""
    from scipy.special import stdtrit

    half = float(stdtrit(df, 0.975)) * se if df > 0 and se == se else float("nan")
    return centre - half, centre + half


def two_sided_p(estimate: float, se: float, df: float) -> float:
    """P value of Student's t test that an estimate is 0; NaN where there is no standard error."""
    from scipy.special import stdtr

    if not (df > 0 and se > 0):
        return float("nan")
    return float(2 * stdtr(df, -abs(estimate) / se))


def t_test(delta: float, variances: np.ndarray, df: np.ndarray) -> Difference:
    """The test of a difference of two estimates with these variances ``[2]`` of ``df`` ``[2]`` degrees of freedom.

    Welch's test (1947, Biometrika 34:28) holds its level from 4 degrees of freedom on either side. With 1 to 3 it
    rejects true equality in up to 12 % of cases; there the critical value is that of Cochran and Cox (1957,
    Experimental Designs, section 4.14), the mean of the two of Student's t weighted by variance. It rejects in 1 to
    6 %: no test keeps to 5 % whatever the scatter of three points is.
    """
    total = float(variances.sum())
    if not (total > 0 and df.min() > 0):
        return Difference(delta)
    se, pooled = total**0.5, total**2 / float(np.sum(variances**2 / df))
    welch = two_sided_p(delta, se, pooled)
    if df.min() >= _ENOUGH_FREEDOM:
        return Difference(delta, *t_interval(delta, se, pooled), welch, WELCH, welch)
    half = se * _cochran_cox(0.05, variances, df)
    p = _cochran_cox_p(abs(delta) / se, variances, df)
    return Difference(delta, delta - half, delta + half, p, COCHRAN_COX, welch)


def _cochran_cox(level: float, variances: np.ndarray, df: np.ndarray) -> float:
    from scipy.special import stdtrit

    return float(variances @ stdtrit(df, 1 - level / 2) / variances.sum())


def _cochran_cox_p(t: float, variances: np.ndarray, df: np.ndarray) -> float:
    """The level at which ``t`` is the critical value, by bisection of its logarithm."""
    low, high = -30.0, 0.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _cochran_cox(np.exp(middle), variances, df) > t else (low, middle)
    return float(np.exp((low + high) / 2))

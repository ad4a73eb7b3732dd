"""Is a loss smaller than a margin? Tests against a drop that is allowed, and how many outcomes they need.

A drop is a difference of proportions of the same samples: ``lost`` of ``n`` were right before only, ``won`` are right
now only. All take arrays, all in [-1, 1]; levels are one-sided.
"""

from __future__ import annotations

from typing import Any

import numpy as np

LEVEL, POWER = 0.95, 0.9
_HALVINGS = 50
Numbers = Any
"""A number, or an array of them; several go together by NumPy's rules."""


def score_z(lost: Numbers, won: Numbers, n: Numbers, margin: Numbers) -> np.ndarray:
    """Tango's score of "the drop is ``margin``" (1998, Statistics in Medicine 17:891), standard normal if it is.

    Positive where the drop is larger. (lost - won - n margin) by its standard error under the hypothesis,
    n (2 q + margin (1 - margin)), with q the maximum likelihood estimate of the share won: a root of
    2 n q^2 - (lost + won - (2 n - lost + won) margin) q - won margin (1 - margin) = 0. Of margin 0 it is McNemar's.
    """
    lost, won, n, margin = (np.asarray(value, np.float64) for value in (lost, won, n, margin))
    mirrored = margin < 0  # the quadratic is of what is won, and needs a margin that is not negative
    lost, won, margin = np.where(mirrored, won, lost), np.where(mirrored, lost, won), np.abs(margin)
    spread = margin * (1 - margin)
    b = (2 * n - lost + won) * margin - (lost + won)
    q = (np.sqrt(b**2 + 8 * n * won * spread) - b) / (4 * n)
    variance = n * (2 * q + spread)
    z = (lost - won - n * margin) / np.sqrt(np.where(variance > 0, variance, np.inf))
    return np.where(mirrored, -z, z)


def score_p(lost: Numbers, won: Numbers, n: Numbers, margin: Numbers) -> np.ndarray:
    """P value of "the drop is at most ``margin``", by ``score_z``."""
    from scipy.special import ndtr

    return ndtr(-score_z(lost, won, n, margin))


def drop_limit(lost: Numbers, won: Numbers, n: Numbers, level: float = LEVEL) -> np.ndarray:
    """The largest drop that ``score_z`` does not reject; the smallest is ``-drop_limit(won, lost, n)``."""
    from scipy.special import ndtri

    lost, won = np.asarray(lost, np.float64), np.asarray(won, np.float64)
    low = (lost - won) / n
    high = np.ones_like(low)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        inside = score_z(lost, won, n, middle) > -ndtri(level)
        low, high = np.where(inside, middle, low), np.where(inside, high, middle)
    return low


def drop_variance(lost: Numbers, won: Numbers, n: Numbers) -> np.ndarray:
    """Variance of the drop, estimated with one sample more that differs: ((lost + won + 1) / n - drop^2) / n."""
    return ((np.add(lost, won) + 1) / n - (np.subtract(lost, won) / n) ** 2) / n


def beyond(drop: Numbers, variance: Numbers, margin: Numbers) -> np.ndarray:
    """P value of "the drop is at most ``margin``", of a drop with this variance whose error is normal."""
    from scipy.special import ndtr

    return ndtr((np.asarray(margin) - drop) / np.sqrt(variance))


def normal_limit(drop: Numbers, variance: Numbers, level: float = LEVEL) -> np.ndarray:
    """The largest drop that ``beyond`` does not reject in the other direction."""
    from scipy.special import ndtri

    return drop + ndtri(level) * np.sqrt(variance)


def pass_chance(variance: Numbers, margin: Numbers, level: float = LEVEL) -> np.ndarray:
    """How often the limit of a drop lies below ``margin`` where there is no drop."""
    from scipy.special import ndtr, ndtri

    return ndtr(margin / np.sqrt(variance) - ndtri(level))


def times_as_many(variance: Numbers, margin: Numbers, level: float = LEVEL, power: float = POWER) -> np.ndarray:
    """By which factor the outcomes behind ``variance`` must grow for ``pass_chance`` to be ``power``.

    Of one data set, or several of equal size, of whose outcomes a share differs, with the variance share / N, it
    makes N (z_level + z_power)^2 share / margin^2.
    """
    from scipy.special import ndtri

    return np.asarray(variance) * ((ndtri(level) + ndtri(power)) / margin) ** 2

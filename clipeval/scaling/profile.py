"""Profile-likelihood intervals of the parameters of a curve."""

from __future__ import annotations

import numpy as np
from scipy.special import stdtrit

from clipeval.scaling.base import Estimate, Interval
from clipeval.scaling.laws.curve import Law
from clipeval.scaling.minimise import Data, minimise

METHOD = "profile likelihood"
DOUBLINGS = 30
HALVINGS = 36
FARTHEST = 50.0
"""A coordinate this far from the estimate counts as unbounded."""


def profile_intervals(
    law: Law, x: np.ndarray, error: np.ndarray, estimate: Estimate, weights: np.ndarray | None = None
) -> dict[str, Interval]:
    """The values of each parameter that least squares over all others cannot tell from the estimate.

    A value is inside while the residual sum of squares is at most ``1 + t**2 / (n - k)`` times the lowest one, with t
    the 97.5 % quantile of Student's distribution (Bates and Watts 1988, section 6.1). An end is a bound of the law
    where the data do not exclude it, as 0 for an ``e_inf`` that is not identified. Needs n - k >= 1.
    """
    n, k = len(error), len(law.names)
    log_x, log_error = np.log(x), np.log(error)
    unscaled = np.zeros_like(log_x[0])
    best = law.coordinates(estimate.params, unscaled)
    low, high = law.bounds(log_x, error)
    low, high = np.minimum(low, best), np.maximum(high, best)
    weight = np.ones(n) if weights is None else weights / np.mean(weights)

    def data(problems: int) -> Data:
        return Data(*(np.broadcast_to(part, (problems, *part.shape)) for part in (log_x, log_error, weight)))

    # two problems per parameter, one for each end; the coordinate in question is held where it is tried
    which, sign = np.tile(np.arange(k), 2), np.repeat([-1.0, 1.0], k)
    rows = np.arange(2 * k)
    limit = np.where(sign < 0, low[which], high[which])
    farthest = np.clip(best[which] + sign * FARTHEST, low[which], high[which])
    threshold = estimate.rss / 2 * (1 + float(stdtrit(n - k, 0.975)) ** 2 / (n - k))
    problems, theta = data(2 * k), np.tile(best, (2 * k, 1))

    def outside(value: np.ndarray) -> np.ndarray:
        """Whether the profile at each problem's value exceeds the threshold; keeps the others' best coordinates."""
        nonlocal theta
        held_low, held_high = np.tile(low, (2 * k, 1)), np.tile(high, (2 * k, 1))
        held_low[rows, which] = held_high[rows, which] = value
        start = theta.copy()
        start[rows, which] = value
        found = minimise(law, problems, start, held_low, held_high)
        theta = found.theta
        return found.objective > threshold

    reach = _first_reach(law, data(1), best, which, limit)
    inner, outer = best[which].copy(), np.clip(best[which] + sign * reach, low[which], high[which])
    beyond = outside(outer)
    for _ in range(DOUBLINGS):
        if np.all(beyond | (outer == farthest)):
            break
        inner = np.where(beyond, inner, outer)
        outer = np.where(beyond, outer, best[which] + 2 * (outer - best[which]))
        outer = np.clip(outer, np.minimum(farthest, best[which]), np.maximum(farthest, best[which]))
        beyond |= outside(outer)
    open_end = ~beyond
    for _ in range(HALVINGS):
        middle = (inner + outer) / 2
        leaves = outside(middle)
        inner, outer = np.where(leaves, inner, middle), np.where(leaves, middle, outer)
    ends = np.where(open_end, limit, outer).reshape(2, k)
    with np.errstate(over="ignore"):
        lows, highs = law.parameters(ends, unscaled)
    return {name: Interval(float(a), float(b), METHOD) for name, a, b in zip(law.names, lows, highs, strict=True)}


def _first_reach(law: Law, data: Data, best: np.ndarray, which: np.ndarray, limit: np.ndarray) -> np.ndarray:
    """A first guess of the half width: two standard errors of the linearised fit."""
    value, jacobian = law.log_error(data.log_x, best[None])
    residual = data.log_error - value
    variance = (data.weights * residual**2).sum() / max(len(residual[0]) - len(best), 1)
    gram = np.swapaxes(jacobian, 1, 2)[0] @ (jacobian[0] * data.weights[0][:, None])
    spread = 2 * np.sqrt(np.maximum(np.diag(np.linalg.pinv(gram)) * variance, 0.0))
    room = np.where(np.isfinite(limit), np.abs(limit - best[which]), np.inf)
    return np.minimum(np.clip(spread[which], 1e-9, 1.0), np.where(room > 0, room, np.inf))

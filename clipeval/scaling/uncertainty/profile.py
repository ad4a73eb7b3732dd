"""Profile-likelihood intervals of the parameters of a curve."""

from __future__ import annotations

import numpy as np
from scipy.special import stdtrit

from clipeval.scaling.minimise import Data, minimise
from clipeval.scaling.problem import Problem
from clipeval.scaling.uncertainty.interval import Interval

METHOD = "profile likelihood"
STEPS = 150
ARRIVED = 1e-8
"""A step so much shorter than the way from the estimate is an end."""
FARTHEST = 50.0
"""A coordinate this far from the estimate counts as unbounded."""


def profile_intervals(problem: Problem) -> dict[str, Interval]:
    """The values of each parameter that least squares over all others cannot tell from the estimate.

    A value is inside while the residual sum of squares is at most ``1 + t**2 / (n - k)`` times the lowest one, with t
    the 97.5 % quantile of Student's distribution (Bates and Watts 1988, section 6.1). An end is a bound of the law
    where the data do not exclude it, as 0 for an ``e_inf`` that is not identified. Needs n - k >= 1.
    """
    law, k, freedom = problem.law, len(problem.law.names), problem.freedom
    threshold = problem.estimate.rss * (1 + float(stdtrit(freedom, 0.975)) ** 2 / freedom)
    lows, highs = law.parameters(_Walk(problem).ends(threshold).reshape(2, k), problem.unscaled)
    return {name: Interval(float(a), float(b), METHOD) for name, a, b in zip(law.names, lows, highs, strict=True)}


class _Walk:
    """Two walks per parameter away from the estimate, one for each end: arrays are ``[2 k]``, the low ends first.

    Every search begins where the last step that was accepted ended, and again at the prolongation of the last two: a
    search from farther away may fail, which says nothing of the value. A step that fails is tried again, a third as
    long.
    """

    def __init__(self, problem: Problem) -> None:
        self.law, theta = problem.law, problem.best
        k = len(theta)
        low, high = self.law.bounds(problem.log_x, problem.error)
        self.low, self.high = np.minimum(low, theta), np.maximum(high, theta)
        self.limit = np.concatenate([self.low, self.high])
        self.at = np.tile(theta, 2)
        self.farthest = np.clip(self.limit, self.at - FARTHEST, self.at + FARTHEST)
        self.held = np.tile(np.arange(k), 2)
        self.here = np.tile(theta, (2 * k, 1))
        self.before = self.here.copy()
        parts = (problem.log_x, problem.log_error, problem.weight)
        self.data = Data(*(np.broadcast_to(part, (2 * k, *part.shape)) for part in parts))
        self.step = self._first_step(problem)

    def ends(self, threshold: float) -> np.ndarray:
        """The farthest value of each walk whose lowest sum of squares is at most ``threshold``, or the limit."""
        start, again = self.at.copy(), np.zeros(len(self.at), dtype=bool)
        walking = np.flatnonzero(self.farthest != start)
        for _ in range(STEPS):
            if not len(walking):
                break
            target = self._target(walking)
            rss, theta = self._search(walking, target)
            good = rss <= threshold
            went, stayed = walking[good], walking[~good]
            self.before[went], self.here[went] = self.here[went], theta[good]
            self.at[went] = target[good]
            self.step[went] *= np.where(again[went], 1.6, 1.0)
            self.step[stayed] /= 3
            again[went], again[stayed] = True, False
            arrived = self.step <= ARRIVED * np.abs(self.at - start) + 1e-12
            walking = walking[~arrived[walking] & (self.at != self.farthest)[walking]]
        return np.where(self.at == self.farthest, self.limit, self.at)

    def _target(self, walking: np.ndarray) -> np.ndarray:
        away = np.where(walking < len(self.at) // 2, -1.0, 1.0)
        target, farthest = self.at[walking] + away * self.step[walking], self.farthest[walking]
        return np.where(away < 0, np.maximum(target, farthest), np.minimum(target, farthest))

    def _search(self, walking: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The lowest sum of squares with each walk's parameter held at its ``target``, and where it lies."""
        rows, held = np.arange(len(walking)), self.held[walking]
        here, before = self.here[walking], self.before[walking]
        moved = here[rows, held] - before[rows, held]
        ahead = np.divide(target - here[rows, held], moved, out=np.zeros_like(moved), where=moved != 0)
        low, high = np.tile(self.low, (2, len(rows), 1)), np.tile(self.high, (2, len(rows), 1))
        low[:, rows, held] = high[:, rows, held] = target
        starts = np.concatenate([here, here + ahead[:, None] * (here - before)])
        bounds = low.reshape(starts.shape), high.reshape(starts.shape)
        found = minimise(self.law, self.data[np.tile(walking, 2)], starts, bounds)
        rss = 2 * np.nan_to_num(found.objective, nan=np.inf).reshape(2, -1)
        best = rss.argmin(axis=0)
        return rss[best, rows], found.theta.reshape(2, *here.shape)[best, rows]

    def _first_step(self, problem: Problem) -> np.ndarray:
        """Two standard errors of the linearised fit, at most 1 where those are not known."""
        _, jacobian = self.law.log_error(self.data.log_x[:1], self.here[:1])
        gram = jacobian[0].T @ (jacobian[0] * problem.weight[:, None])
        spread = 2 * np.sqrt(np.maximum(np.diag(np.linalg.pinv(gram)) * problem.estimate.rss / problem.freedom, 0.0))
        return np.tile(np.clip(spread, 1e-9, 1.0), 2)

"""Profile-likelihood intervals of the parameters of a curve."""

from __future__ import annotations

import numpy as np
from scipy.special import stdtrit

from clipeval.scaling.minimise import Data, minimise
from clipeval.scaling.problem import Problem
from clipeval.scaling.uncertainty.interval import Interval

METHOD = "profile likelihood"
DOUBLINGS = 30
HALVINGS = 36
FARTHEST = 50.0
"""A coordinate this far from the estimate counts as unbounded."""


def profile_intervals(problem: Problem) -> dict[str, Interval]:
    """The values of each parameter that least squares over all others cannot tell from the estimate.

    A value is inside while the residual sum of squares is at most ``1 + t**2 / (n - k)`` times the lowest one, with t
    the 97.5 % quantile of Student's distribution (Bates and Watts 1988, section 6.1). An end is a bound of the law
    where the data do not exclude it, as 0 for an ``e_inf`` that is not identified. Needs n - k >= 1.
    """
    law, k, freedom, rss = problem.law, len(problem.law.names), problem.freedom, problem.estimate.rss
    profile = _Profile(problem)
    threshold = rss * (1 + float(stdtrit(freedom, 0.975)) ** 2 / freedom)
    inner, outer = profile.best, profile.first_guess(rss / freedom)
    beyond = profile.rss(outer) > threshold
    for _ in range(DOUBLINGS):
        if np.all(beyond | (outer == profile.farthest)):
            break
        inner = np.where(beyond, inner, outer)
        outer = np.where(beyond, outer, profile.clipped(profile.best + 2 * (outer - profile.best)))
        beyond |= profile.rss(outer) > threshold
    bounded = beyond
    for _ in range(HALVINGS):
        middle = (inner + outer) / 2
        beyond = profile.rss(middle) > threshold
        inner, outer = np.where(beyond, inner, middle), np.where(beyond, middle, outer)
    ends = np.where(bounded, outer, profile.limit).reshape(2, k)
    with np.errstate(over="ignore"):
        lows, highs = law.parameters(ends, profile.unscaled)
    return {name: Interval(float(a), float(b), METHOD) for name, a, b in zip(law.names, lows, highs, strict=True)}


class _Profile:
    """Two searches per parameter, one for each end: arrays are ``[2 k]``, the low ends of all parameters first."""

    def __init__(self, problem: Problem) -> None:
        self.law, self.unscaled, theta = problem.law, problem.unscaled, problem.best
        k = len(theta)
        low, high = self.law.bounds(problem.log_x, problem.error)
        self.low, self.high = np.minimum(low, theta), np.maximum(high, theta)
        self.limit = np.concatenate([self.low, self.high])
        self.best = np.tile(theta, 2)
        self.farthest = np.clip(self.limit, self.best - FARTHEST, self.best + FARTHEST)
        self.held = np.arange(2 * k), np.tile(np.arange(k), 2)
        self.theta = np.tile(theta, (2 * k, 1))
        self.origin = self.theta.copy()
        parts = (problem.log_x, problem.log_error, problem.weight)
        self.data = Data(*(np.broadcast_to(part, (2 * k, *part.shape)) for part in parts))

    def rss(self, values: np.ndarray) -> np.ndarray:
        """The lowest sum of squares with each search's parameter held at its value.

        Searched from where the last one ended and from the estimate: a term that vanished far away does not come back.
        """
        low, high = np.tile(self.low, (len(values), 1)), np.tile(self.high, (len(values), 1))
        low[self.held] = high[self.held] = self.theta[self.held] = self.origin[self.held] = values
        last, fresh = (minimise(self.law, self.data, start, low, high) for start in (self.theta, self.origin))
        self.theta = np.where((last.objective <= fresh.objective)[:, None], last.theta, fresh.theta)
        return 2 * np.minimum(last.objective, fresh.objective)

    def clipped(self, values: np.ndarray) -> np.ndarray:
        return np.clip(values, np.minimum(self.farthest, self.best), np.maximum(self.farthest, self.best))

    def first_guess(self, variance: float) -> np.ndarray:
        """Two standard errors of the linearised fit away, at most 1 where those are not known."""
        _, jacobian = self.law.log_error(self.data.log_x[:1], self.theta[:1])
        gram = jacobian[0].T @ (jacobian[0] * self.data.weights[0][:, None])
        spread = 2 * np.sqrt(np.maximum(np.diag(np.linalg.pinv(gram)) * variance, 0.0))
        reach = np.tile(np.clip(spread, 1e-9, 1.0), 2)
        return self.clipped(self.best + np.where(self.held[0] < len(spread), -reach, reach))

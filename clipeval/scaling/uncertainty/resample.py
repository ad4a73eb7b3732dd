"""Draws of the parameters of a law: from models drawn again, and from data sets that the fitted law would give."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from clipeval.scaling.estimate import Estimate, fit_many, frontier_points, loss_for
from clipeval.scaling.frontier import Frontier
from clipeval.scaling.laws import Law, LogLinear
from clipeval.scaling.minimise import Loss

LEVEL_BLUR, SLOPE_BLUR = 21.0, 11.0
"""The level and the slope of a quantile line are bootstrapped with errors blurred by so much / n of their scatter."""
FEW_DEGREES = 8
DRAWS_OF_FEW = 100_000
"""Below 8 degrees of freedom the tails of Student's distribution need more draws than usual."""


@dataclass(frozen=True)
class Problem:
    """An estimate and all that it was made of. ``log_x`` is ``[n]`` or ``[n, inputs]``, ``x_tolerance`` alike."""

    law: Law
    log_x: np.ndarray
    log_error: np.ndarray
    estimate: Estimate
    frontier: Frontier
    loss: Loss
    weights: np.ndarray
    x_tolerance: np.ndarray | None
    draws: int
    generator: np.random.Generator

    @property
    def freedom(self) -> int:
        """Points minus parameters."""
        return len(self.log_error) - len(self.law.names)

    @property
    def unscaled(self) -> np.ndarray:
        """The logarithmic scale of coordinates of the inputs themselves, each a function of one parameter."""
        return np.zeros_like(self.log_x[0])

    @property
    def best(self) -> np.ndarray:
        """The coordinates of the estimate ``[k]``."""
        return self.law.coordinates(self.estimate.params, self.unscaled)

    def predicted(self) -> np.ndarray:
        """ln E of the estimate ``[n]``."""
        return np.log(self.law.error(np.exp(self.log_x), self.estimate.params))

    def jittered(self, draws: int) -> np.ndarray:
        """Inputs ``[draws, n(, inputs)]``, each moved within its relative tolerance."""
        repeated = np.broadcast_to(self.log_x, (draws, *self.log_x.shape))
        if self.x_tolerance is None:
            return repeated
        return repeated + np.log1p(self.x_tolerance * self.generator.uniform(-1, 1, repeated.shape))

    def refit(self, log_x: np.ndarray, log_error: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
        """Parameters ``[draws, k]`` of the frontiers of data sets; ``weights`` need frontier ``none``."""
        points = frontier_points(self.frontier, log_x, log_error)
        if weights is not None:
            points = replace(points, weight=weights)
        return fit_many(self.law, points, loss_for(self.frontier, self.loss), self.estimate.params)


def models_again(problem: Problem) -> np.ndarray:
    """Parameters ``[draws, k]`` for models drawn with replacement."""
    log_x, log_error, index = _resampled(problem)
    return problem.refit(log_x, log_error, problem.weights[index] if problem.frontier.name == "none" else None)


def quantile_lines(problem: Problem) -> tuple[np.ndarray, np.ndarray]:
    """Parameters ``[draws, 2]`` of the line of a quantile: for intervals of them, and for intervals of the line.

    The former are of models drawn with replacement. Of few models the lowest tenth is two or three, which the draws
    repeat, so that the level of the line has too few values. For the latter errors are therefore blurred in units of
    the lower quartile of the distances from the line, the scatter near a frontier: more for the level at the middle
    of the models than for the slope.
    """
    log_x, log_error, _ = _resampled(problem)
    n, centre = log_error.shape[1], problem.log_x.mean()
    scatter = np.quantile(problem.log_error - problem.predicted(), 0.25) / n
    noise = scatter * problem.generator.standard_normal(log_error.shape)
    alpha_of_level, beta_of_level = problem.refit(log_x, log_error + LEVEL_BLUR * noise).T
    alpha = problem.refit(log_x, log_error + SLOPE_BLUR * noise)[:, 0]
    level = np.log(beta_of_level) + alpha_of_level * centre
    return problem.refit(log_x, log_error), np.stack([alpha, np.exp(level - alpha * centre)], axis=1)


def data_again(problem: Problem) -> np.ndarray:
    """Parameters ``[draws, k]`` for data sets that the fitted law would give.

    The scatter is normal, and its size is drawn from what n - k residuals say of it. For a law linear in logarithms
    the draws follow the multivariate t distribution of the estimate exactly.
    """
    few = problem.freedom < FEW_DEGREES and isinstance(problem.law, LogLinear)
    draws = max(problem.draws, DRAWS_OF_FEW) if few else problem.draws
    scatter = np.sqrt(problem.estimate.rss / problem.generator.chisquare(problem.freedom, (draws, 1)))
    noise = scatter * problem.generator.standard_normal((draws, len(problem.log_error))) / np.sqrt(problem.weights)
    return problem.refit(
        problem.jittered(draws), problem.predicted() + noise, np.broadcast_to(problem.weights, noise.shape)
    )


def scales_again(problem: Problem) -> np.ndarray:
    """Parameters ``[draws, k]`` for the same errors at scales moved within their tolerance."""
    shape = (problem.draws, len(problem.log_error))
    weights = np.broadcast_to(problem.weights, shape) if problem.frontier.name == "none" else None
    return problem.refit(problem.jittered(problem.draws), np.broadcast_to(problem.log_error, shape), weights)


def _resampled(problem: Problem) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    n = len(problem.log_error)
    index = problem.generator.integers(n, size=(problem.draws, n))
    log_x = problem.jittered(problem.draws)[np.arange(problem.draws)[:, None], index]
    return log_x, problem.log_error[index], index

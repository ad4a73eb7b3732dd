"""Draws of the parameters of a law: from models drawn again, and from data sets that the fitted law would give."""

from __future__ import annotations

import numpy as np

from clipeval.scaling.laws import LogLinear
from clipeval.scaling.problem import Problem

LEVEL_BLUR, SLOPE_BLUR = 21.0, 11.0
"""The level and the slope of a quantile line are bootstrapped with errors blurred by so much / n of their scatter."""
MANY = 200
"""Models of which the lowest tenth is many enough for the draws as they are: without blurred errors 94 to 97 % of
intervals of a line hold the truth, and tests of equal exponents by the spread of the draws reject 3.5 to 6 %."""
FEW_DEGREES = 8
DRAWS_OF_FEW = 100_000
"""Below 8 degrees of freedom the tails of Student's distribution need more draws than usual."""


def models_again(problem: Problem, generator: np.random.Generator) -> np.ndarray:
    """Parameters ``[draws, k]`` for models drawn with replacement."""
    log_x, log_error, index = _resampled(problem, generator)
    return problem.refit(log_x, log_error, problem.weight[index])


def groups_again(problem: Problem, groups: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Parameters ``[draws, k]`` for whole groups of models drawn with replacement; ``groups`` ``[n]`` are their numbers
    from 0. Draws of equally many models are fitted together."""
    members = [np.flatnonzero(groups == number) for number in range(int(groups.max()) + 1)]
    drawn = generator.integers(len(members), size=(problem.draws, len(members)))
    size = np.array([len(rows) for rows in members])[drawn].sum(1)
    log_x, found = _jittered(problem, problem.draws, generator), np.empty((problem.draws, len(problem.law.names)))
    for some in (np.flatnonzero(size == n) for n in np.unique(size)):
        index = np.array([np.concatenate([members[number] for number in drawn[draw]]) for draw in some])
        found[some] = problem.refit(log_x[some[:, None], index], problem.log_error[index])
    return found


def quantile_lines(problem: Problem, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Parameters ``[draws, 2]`` of the line of a quantile: for intervals of them, and for intervals of the line.

    The former are of models drawn with replacement. Of few models the lowest tenth is two or three, which the draws
    repeat, so that the level of the line has too few values. For the latter errors are therefore blurred in units of
    the lower quartile of the distances from the line, the scatter near a frontier: more for the level at the middle
    of the models than for the slope. Of ``MANY`` models both are the same draws.
    """
    log_x, log_error, _ = _resampled(problem, generator)
    drawn, n = problem.refit(log_x, log_error), log_error.shape[1]
    if n >= MANY:
        return drawn, drawn
    centre = problem.log_x.mean()
    scatter = np.quantile(problem.log_error - problem.predicted(), 0.25) / n
    noise = scatter * generator.standard_normal(log_error.shape)
    alpha_of_level, beta_of_level = problem.refit(log_x, log_error + LEVEL_BLUR * noise, start=drawn).T
    alpha = problem.refit(log_x, log_error + SLOPE_BLUR * noise, start=drawn)[:, 0]
    level = np.log(beta_of_level) + alpha_of_level * centre
    return drawn, np.stack([alpha, np.exp(level - alpha * centre)], axis=1)


def data_again(problem: Problem, generator: np.random.Generator) -> np.ndarray:
    """Parameters ``[draws, k]`` for data sets that the fitted law would give.

    The scatter is normal, and its size is drawn from what n - k residuals say of it. For a law linear in logarithms
    the draws follow the multivariate t distribution of the estimate exactly.
    """
    few = problem.freedom < FEW_DEGREES and isinstance(problem.law, LogLinear)
    draws = max(problem.draws, DRAWS_OF_FEW) if few else problem.draws
    scatter = np.sqrt(problem.estimate.rss / generator.chisquare(problem.freedom, (draws, 1)))
    noise = scatter * generator.standard_normal((draws, len(problem.log_error))) / np.sqrt(problem.weight)
    moved = _jittered(problem, draws, generator)
    return problem.refit(moved, problem.predicted() + noise, np.broadcast_to(problem.weight, noise.shape))


def scales_again(problem: Problem, generator: np.random.Generator) -> np.ndarray:
    """Parameters ``[draws, k]`` for the same errors at scales moved within their tolerance."""
    shape = (problem.draws, len(problem.log_error))
    errors, weights = np.broadcast_to(problem.log_error, shape), np.broadcast_to(problem.weight, shape)
    return problem.refit(_jittered(problem, problem.draws, generator), errors, weights)


def _resampled(problem: Problem, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    n = len(problem.log_error)
    index = generator.integers(n, size=(problem.draws, n))
    log_x = _jittered(problem, problem.draws, generator)[np.arange(problem.draws)[:, None], index]
    return log_x, problem.log_error[index], index


def _jittered(problem: Problem, draws: int, generator: np.random.Generator) -> np.ndarray:
    """Inputs ``[draws, n(, inputs)]``, each moved within its relative tolerance."""
    repeated = np.broadcast_to(problem.log_x, (draws, *problem.log_x.shape))
    if problem.x_tolerance is None:
        return repeated
    return repeated + np.log1p(problem.x_tolerance * generator.uniform(-1, 1, repeated.shape))

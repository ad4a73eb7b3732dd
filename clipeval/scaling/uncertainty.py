"""Intervals of parameters, and draws of parameters for bands and crossovers."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.special import ndtr, ndtri, stdtrit

from clipeval.scaling.base import Estimate, Interval
from clipeval.scaling.estimate import fit_many, frontier_points, loss_for
from clipeval.scaling.frontier import Frontier, frontier_for
from clipeval.scaling.laws import Law, LogLinear
from clipeval.scaling.minimise import LEAST_SQUARES, Loss
from clipeval.scaling.permutation import permutation_interval
from clipeval.scaling.profile import profile_intervals

DRAWS = 2000
BLUR = 15.0
"""The level of a quantile line is bootstrapped with errors blurred by BLUR / n of their scatter near the line."""
FEWEST = 10
"""Models below which a bootstrap over them gives no interval."""
FEWEST_FOR_A_LEVEL = 25
"""Models below which the level of a quantile line has no interval."""
_ENDS = (0.025, 0.975)


@dataclass(frozen=True)
class Uncertainty:
    """How well the parameters of a law are known.

    ``draws`` ``[B, k]`` are parameters for whatever depends on the level of the line, as predictions and crossovers:
    their 2.5 and 97.5 % quantiles are 95 % intervals, unless ``draws_reason`` says why not. A draw whose points do not
    determine the law is NaN. ``alpha_se`` and ``alpha_df``, for tests of equal exponents, are the standard error of
    alpha and its degrees of freedom, NaN where alpha has no bounded interval.
    """

    intervals: dict[str, Interval]
    draws: np.ndarray
    method: str
    draws_reason: str
    alpha_se: float
    alpha_df: float


@dataclass(frozen=True)
class _Problem:
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
        return len(self.log_error) - len(self.law.names)

    @property
    def unscaled(self) -> np.ndarray:
        """The logarithmic scale of coordinates of the inputs themselves, each a function of one parameter."""
        return np.zeros_like(self.log_x[0])

    @property
    def best(self) -> np.ndarray:
        return self.law.coordinates(self.estimate.params, self.unscaled)

    def predicted(self) -> np.ndarray:
        return np.log(self.law.error(np.exp(self.log_x), self.estimate.params))

    def jittered(self) -> np.ndarray:
        """Inputs ``[draws, n(, inputs)]``, each moved within its relative tolerance."""
        repeated = np.broadcast_to(self.log_x, (self.draws, *self.log_x.shape))
        if self.x_tolerance is None:
            return repeated
        return repeated + np.log1p(self.x_tolerance * self.generator.uniform(-1, 1, repeated.shape))

    def refit(self, log_x: np.ndarray, log_error: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
        """Parameters ``[draws, k]`` of the frontiers of data sets; ``weights`` need frontier ``none``."""
        points = frontier_points(self.frontier, log_x, log_error)
        if weights is not None:
            points = replace(points, weight=weights)
        return fit_many(self.law, points, loss_for(self.frontier, self.loss), self.estimate.params)

    def none_given(self, reason: str) -> dict[str, Interval]:
        return {name: Interval(np.nan, np.nan, "none", reason) for name in self.law.names}


def uncertainty(
    law: Law,
    x: np.ndarray,
    error: np.ndarray,
    estimate: Estimate,
    *,
    frontier: str = "none",
    loss: Loss = LEAST_SQUARES,
    weights: np.ndarray | None = None,
    x_tolerance: np.ndarray | None = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> Uncertainty:
    """Intervals and draws for an ``estimate`` made by ``fit`` with the same arguments.

    ``x_tolerance``, shaped as ``x``, is the relative error a rounded scale may have; draws move each point uniformly
    within it, and intervals that are not made of draws are widened by the spread it causes.

    How each interval is made, and how often it covered the exponent in 4,000 simulated data sets (bench/coverage.py):

    COVERAGE_TABLE
    """
    problem = _Problem(
        law=law,
        log_x=np.log(x),
        log_error=np.log(error),
        estimate=estimate,
        frontier=frontier_for(frontier, len(error)),
        loss=loss,
        weights=np.ones(len(error)) if weights is None else weights / np.mean(weights),
        x_tolerance=x_tolerance,
        draws=draws,
        generator=np.random.default_rng(seed),
    )
    with np.errstate(over="ignore", invalid="ignore"):
        if problem.frontier.tau != 0.5:
            return _of_quantile(problem)
        if problem.frontier.name != "none":
            return _of_best_models(problem)
        if problem.loss != LEAST_SQUARES:
            return _of_robust_fit(problem)
        return _of_least_squares(problem)


def _of_quantile(problem: _Problem) -> Uncertainty:
    """Bootstrap over models. Where lines through few points decide, the level needs blurred errors as well."""
    n = len(problem.log_error)
    draws = _bootstrap(problem)
    if isinstance(problem.law, LogLinear):
        ends = np.nanquantile(draws, _ENDS, axis=0)
        intervals = _named(problem, ends, "percentile bootstrap over models")
    else:
        intervals = _bias_corrected(problem, draws)
    reason = "" if n >= FEWEST_FOR_A_LEVEL else f"{n} models do not show where the best tenth lies"
    found = _result(problem, intervals, _bootstrap(problem, BLUR / n), "smoothed bootstrap over models", reason)
    return replace(found, alpha_se=_central_se(problem, draws))


def _of_best_models(problem: _Problem) -> Uncertainty:
    """The lowest errors of bins, of a Pareto set or of a hull: the bootstrap misses the truth, permutations do not."""
    reason = "the level of this frontier falls with the number of models tried"
    intervals = problem.none_given(reason)
    if isinstance(problem.law, LogLinear) and problem.loss == LEAST_SQUARES:
        seed = int(problem.generator.integers(2**31))
        intervals["alpha"] = permutation_interval(
            problem.log_x, problem.log_error, lambda *data: problem.refit(*data)[:, 0], seed=seed
        )
    return _result(problem, _widened(problem, intervals), _bootstrap(problem), "bootstrap over models", reason)


def _of_robust_fit(problem: _Problem) -> Uncertainty:
    n = len(problem.log_error)
    if n < FEWEST:
        reason = f"a bootstrap over {n} models is too narrow; least squares has Student's t"
        return _result(problem, problem.none_given(reason), _no_draws(problem), "none", reason)
    draws = _bootstrap(problem)
    return _result(problem, _bias_corrected(problem, draws), draws, "bootstrap over models", "")


def _of_least_squares(problem: _Problem) -> Uncertainty:
    """Student's t where the law is linear in logarithms, else profile likelihood; both need a spare point."""
    n, k = len(problem.log_error), len(problem.law.names)
    if n <= k:
        reason = f"{n} points leave no scatter about a law of {k} parameters"
        return _result(problem, problem.none_given(reason), _no_draws(problem), "none", reason)
    if isinstance(problem.law, LogLinear):
        intervals = _student(problem)
    else:
        x, error = np.exp(problem.log_x), np.exp(problem.log_error)
        intervals = profile_intervals(problem.law, x, error, problem.estimate, problem.weights)
    return _result(
        problem, _widened(problem, intervals), _regenerated(problem), "Student's t bootstrap of residuals", ""
    )


def _bootstrap(problem: _Problem, blur: float = 0.0) -> np.ndarray:
    """Parameters ``[draws, k]`` for models drawn with replacement, their errors blurred.

    ``blur`` is in units of the lower quartile of the distances from the line, the scatter near a frontier.
    """
    n = len(problem.log_error)
    index = problem.generator.integers(n, size=(problem.draws, n))
    log_x = problem.jittered()[np.arange(problem.draws)[:, None], index]
    log_error = problem.log_error[index]
    if blur:
        scatter = np.quantile(problem.log_error - problem.predicted(), 0.25)
        log_error = log_error + blur * scatter * problem.generator.standard_normal(log_error.shape)
    return problem.refit(log_x, log_error, problem.weights[index] if problem.frontier.name == "none" else None)


def _regenerated(problem: _Problem) -> np.ndarray:
    """Parameters ``[draws, k]`` for data sets that the fitted law would give.

    The scatter is normal, and its size is drawn from what n - k residuals say of it. For a law linear in logarithms
    the draws follow the multivariate t distribution of the estimate exactly.
    """
    n = len(problem.log_error)
    scatter = np.sqrt(problem.estimate.rss / problem.generator.chisquare(problem.freedom, (problem.draws, 1)))
    noise = scatter * problem.generator.standard_normal((problem.draws, n)) / np.sqrt(problem.weights)
    weights = np.broadcast_to(problem.weights, noise.shape)
    return problem.refit(problem.jittered(), problem.predicted() + noise, weights)


def _bias_corrected(problem: _Problem, draws: np.ndarray) -> dict[str, Interval]:
    """Percentiles moved by twice the median bias of the draws (Efron 1981, Can. J. Stat. 9:139)."""
    below = (draws < problem.estimate.params).mean(0) + (draws == problem.estimate.params).mean(0) / 2
    bias = ndtri(np.clip(below, 1 / len(draws), 1 - 1 / len(draws)))
    levels = ndtr(2 * bias[:, None] + ndtri(np.array(_ENDS)))
    ends = [np.nanquantile(draws[:, j], level) for j, level in enumerate(levels)]
    return _named(problem, np.transpose(ends), "bias-corrected bootstrap over models")


def _central_se(problem: _Problem, draws: np.ndarray) -> float:
    """The standard error of alpha from the central 80 % of its draws.

    The outer draws are of resamplings with few good models; with them, tests of equal exponents would hardly reject.
    """
    if "alpha" not in problem.law.names:
        return np.nan
    low, high = np.nanquantile(draws[:, problem.law.names.index("alpha")], (0.1, 0.9))
    return float((high - low) / (2 * ndtri(0.9)))


def _student(problem: _Problem) -> dict[str, Interval]:
    law, freedom = problem.law, problem.freedom
    _, features = law.log_error(problem.log_x[None], problem.best[None])
    centre = np.append(np.average(features[0][:, :-1], axis=0, weights=problem.weights), 0.0)
    centred = features[0] - centre
    gram = centred.T @ (centred * problem.weights[:, None])
    # the exponents and the level at the centre of the points; ln beta is the level at x = 1
    to_origin = np.eye(len(centre))
    to_origin[-1] -= centre
    covariance = to_origin @ np.linalg.inv(gram) @ to_origin.T * problem.estimate.rss / freedom
    half = stdtrit(freedom, 0.975) * np.sqrt(np.diag(covariance))
    ends = law.parameters(np.stack([problem.best - half, problem.best + half]), problem.unscaled)
    return _named(problem, ends, f"Student t, {freedom} degrees of freedom")


def _widened(problem: _Problem, intervals: dict[str, Interval]) -> dict[str, Interval]:
    """Intervals whose half widths include, in quadrature, what inaccurate scales add."""
    if problem.x_tolerance is None:
        return intervals
    law, best, shape = problem.law, problem.best, (problem.draws, len(problem.log_error))
    weights = np.broadcast_to(problem.weights, shape) if problem.frontier.name == "none" else None
    moved = problem.refit(problem.jittered(), np.broadcast_to(problem.log_error, shape), weights)
    spread = stdtrit(problem.freedom, 0.975) * np.nanstd(law.coordinates(moved, problem.unscaled), axis=0)
    low, high = (
        law.coordinates(np.array([getattr(intervals[name], end) for name in law.names]), problem.unscaled)
        for end in ("low", "high")
    )
    wider = np.stack([best - np.hypot(best - low, spread), best + np.hypot(high - best, spread)])
    ends = law.parameters(np.clip(wider, *law.bounds(problem.log_x, np.exp(problem.log_error))), problem.unscaled)
    return {
        name: replace(
            intervals[name], low=float(a), high=float(b), method=intervals[name].method + ", inaccurate scales"
        )
        for name, a, b in zip(law.names, *ends, strict=True)
    }


def _named(problem: _Problem, ends: np.ndarray, method: str) -> dict[str, Interval]:
    return {name: Interval(float(a), float(b), method) for name, a, b in zip(problem.law.names, *ends, strict=True)}


def _no_draws(problem: _Problem) -> np.ndarray:
    return np.empty((0, len(problem.law.names)))


def _result(
    problem: _Problem, intervals: dict[str, Interval], draws: np.ndarray, method: str, reason: str
) -> Uncertainty:
    half = (intervals["alpha"].high - intervals["alpha"].low) / 2 if "alpha" in intervals else np.nan
    if not np.isfinite(half):
        return Uncertainty(intervals, draws, method, reason, np.nan, np.nan)
    se = half / float(stdtrit(problem.freedom, 0.975))
    return Uncertainty(intervals, draws, method, reason, se, float(problem.freedom))

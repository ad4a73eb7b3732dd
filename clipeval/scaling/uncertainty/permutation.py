"""Intervals of an exponent from the frontiers of permuted residuals."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from clipeval.scaling.problem import Problem
from clipeval.scaling.uncertainty.interval import Interval

METHOD = "inverted permutation test"
DOUBLINGS = 8
HALVINGS = 14


def permutation_interval(problem: Problem, permutations: int = 1000, seed: int = 0) -> Interval:
    """The exponents under which the one that was fitted is not surprising.

    If the true exponent is a, the distances of the models ``[n]`` from a line of that slope may be exchanged between
    them. The fitted exponent is compared with those of the frontiers of data sets made by such exchanges; a lies
    inside while it is not among the lowest or highest 2.5 %. The bias of a frontier is in both and cancels.
    """
    generator = np.random.default_rng(seed)
    log_x, log_error = problem.log_x, problem.log_error
    orders = np.argsort(generator.random((permutations, len(log_x))), axis=-1)

    def below(exponent: float) -> float:
        return share_below(problem, exponent, orders)

    centred = log_x - log_x.mean()
    plain = float(centred @ log_error / (centred @ centred))
    scatter = float(np.std(log_error - plain * log_x, ddof=2) / np.sqrt(centred @ centred))
    low = _end(lambda exponent: below(exponent) > 0.975, plain, -4 * scatter)
    high = _end(lambda exponent: below(exponent) < 0.025, plain, 4 * scatter)
    reason = "" if np.isfinite(high - low) else "the permutation test excludes no exponent on the open side"
    return Interval(low, high, METHOD, reason)


def share_below(problem: Problem, exponent: float, orders: np.ndarray) -> float:
    """The part of ``orders`` ``[permutations, n]`` whose frontiers have at most the exponent fitted to the data.

    Residuals are taken from a line of slope ``exponent``. Ties count half.
    """
    own = problem.refit(problem.log_x[None], problem.log_error[None])[:, 0]
    others = exponent + slope_errors(problem, exponent, orders)
    others = others[~np.isnan(others)]
    close = np.isclose(others, own, rtol=1e-9, atol=1e-12)
    return float((((others < own) & ~close) + close / 2).mean())


def slope_errors(problem: Problem, exponent: float, orders: np.ndarray) -> np.ndarray:
    """Fitted minus true exponent ``[permutations]`` of data sets made from a line of slope ``exponent``, around which
    the residuals of the models ``[n]`` are exchanged as ``orders`` ``[permutations, n]`` say."""
    log_x = problem.log_x
    exchanged = exponent * log_x + (problem.log_error - exponent * log_x)[orders]
    line = np.array([exponent, 1.0])
    return problem.refit(np.broadcast_to(log_x, exchanged.shape), exchanged, start=line)[:, 0] - exponent


def _end(excluded: Callable[[float], bool], start: float, reach: float) -> float:
    """Where exponents begin to be ``excluded`` on the side of ``reach``; infinite where none is."""
    for _ in range(DOUBLINGS):
        if excluded(start + reach):
            break
        reach *= 2
    else:
        return float(np.copysign(np.inf, reach))
    # the estimate of a biased frontier may lie outside its interval: look back over the start
    inside, outside = start - reach, start + reach
    for _ in range(HALVINGS):
        middle = (inside + outside) / 2
        inside, outside = (inside, middle) if excluded(middle) else (middle, outside)
    return (inside + outside) / 2

"""Whether a law may be believed: errors on models it has not seen, and verdicts."""

from __future__ import annotations

import numpy as np

from clipeval.errors import MeasureError
from clipeval.scaling.laws import LAWS, LogLinear
from clipeval.scaling.laws.law import STEEPEST
from clipeval.scaling.problem import Problem
from clipeval.scaling.uncertainty.interval import Interval
from clipeval.scaling.uncertainty.methods import uncertainty

SCALING, NO_SCALING, TOO_FEW = "scaling", "no-scaling", "too-few-points"


def holdout(others: Problem, x: np.ndarray, error: np.ndarray) -> float:
    """Mean absolute difference of the law of the ``others`` and the ``error`` ``[m]`` of models ``x``.

    Raises MeasureError where there is no model to score or too few others to fit.
    """
    if len(error) == 0:
        raise MeasureError("hold-out: no model lies beyond the cut, so that nothing can be scored. Lower the cut.")
    return float(np.abs(others.law.error(x, others.estimate.params) - error).mean())


def leave_one_out(problem: Problem) -> np.ndarray:
    """Predicted minus measured error ``[n]`` of each model by the law of all others.

    The search for each law begins at the estimate of all. NaN where the others do not determine the law.
    """
    n = len(problem.error)
    others = np.array([np.delete(np.arange(n), i) for i in range(n)])
    params = problem.refit(problem.log_x[others], problem.log_error[others], problem.weight[others])
    predicted = np.array([problem.law.error(problem.x[i : i + 1], params[i])[0] for i in range(n)])
    return predicted - problem.error


def verdict(alpha: Interval, x: np.ndarray, error: np.ndarray) -> str:
    """``scaling`` where the error falls with ``x`` ``[n]`` beyond doubt, ``no-scaling`` where it may not fall at all.

    Judged by the interval of the exponent, or where a law has none by that of a power law through all models. Three
    points that do not show a fall, and fewer points, are ``too-few-points``.
    """
    if len(error) < 3:
        return TOO_FEW
    high = alpha.high if np.isfinite(alpha.high) else _trend(x, error).high
    if high < 0:
        return SCALING
    return NO_SCALING if len(error) > 3 else TOO_FEW


def joint_verdict(problem: Problem) -> str:
    """The verdict on a law of several scales.

    ``scaling`` where by AICc it explains the errors better than a constant does, and they fall if all scales grow.
    """
    n, estimate = len(problem.error), problem.estimate
    spread = float(problem.log_error.var())
    constant = n * np.log(spread) + 4 + 12 / (n - 3) if n > 3 else np.inf
    if not np.isfinite(estimate.aicc):
        return TOO_FEW
    centre = np.exp(problem.log_x.mean(0))
    falls = np.diff(problem.law.error(np.stack([centre, 2 * centre]), estimate.params))[0] < 0
    return SCALING if estimate.aicc < constant and falls else NO_SCALING


def at_bounds(problem: Problem) -> list[str]:
    """The exponents that the search for a curve left at a bound, where the data do not determine them."""
    law, found = problem.law, problem.estimate
    free = isinstance(law, LogLinear)
    return [name for name in law.names if name.startswith("alpha") and abs(found[name]) >= -STEEPEST and not free]


def floor_note(e_inf: Interval) -> str:
    """A warning where an irreducible error of 0 fits as well, else an empty string."""
    if not e_inf.low <= 0:
        return ""
    return f"e_inf is not identified: anything from 0 to {e_inf.high:.5g} fits, so that long extrapolations are open"


def decades_beyond(seen: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """How far each of the scales ``asked`` lies outside those ``seen``, in decades of the scale that is furthest out.

    ``[n]`` or ``[n, inputs]`` each; 0 inside. More than one decade is an extrapolation too far.
    """
    seen, asked = seen.reshape(len(seen), -1), asked.reshape(len(asked), -1)
    below, above = np.log10(seen.min(0) / asked), np.log10(asked / seen.max(0))
    return np.maximum(0.0, np.maximum(below, above)).max(1)


def _trend(x: np.ndarray, error: np.ndarray) -> Interval:
    return uncertainty(Problem(LAWS["power"], x, error, draws=1)).intervals["alpha"]

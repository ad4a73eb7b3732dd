"""Whether a law may be believed: errors on models it has not seen, and verdicts."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from clipeval.errors import MeasureError
from clipeval.scaling.estimate import Estimate, fit, fit_many, frontier_points, loss_for
from clipeval.scaling.frontier import frontier_for
from clipeval.scaling.laws import LAWS, Law
from clipeval.scaling.minimise import LEAST_SQUARES, Loss
from clipeval.scaling.uncertainty.interval import Interval

SCALING, NO_SCALING, TOO_FEW = "scaling", "no-scaling", "too-few-points"


@dataclass(frozen=True)
class Holdout:
    """Predictions for models that were not fitted: errors ``[m]`` in [0, 1]. ``estimate`` is of the other models."""

    estimate: Estimate
    predicted: np.ndarray
    measured: np.ndarray

    @property
    def mae(self) -> float:
        """Mean absolute error in percentage points."""
        return float(100 * np.abs(self.predicted - self.measured).mean())


def holdout(
    law: Law,
    x: np.ndarray,
    error: np.ndarray,
    held: np.ndarray,
    *,
    scored: np.ndarray | None = None,
    frontier: str = "none",
    loss: Loss = LEAST_SQUARES,
    weights: np.ndarray | None = None,
) -> Holdout:
    """Fits the models that are not ``held`` (boolean ``[n]``) and predicts those held that are ``scored`` (all).

    ``held`` is usually ``x > cut``, the largest compute. ``weights`` are those of the models that are not held. Raises
    MeasureError where no model is left to score or too few to fit.
    """
    asked = held if scored is None else held & scored
    if not asked.any():
        raise MeasureError("hold-out: no model lies beyond the cut, so that nothing can be scored. Lower the cut.")
    estimate = fit(law, x[~held], error[~held], frontier=frontier, loss=loss, weights=weights)
    return Holdout(estimate, law.error(x[asked], estimate.params), error[asked])


def leave_one_out(
    law: Law,
    x: np.ndarray,
    error: np.ndarray,
    estimate: Estimate,
    *,
    frontier: str = "none",
    loss: Loss = LEAST_SQUARES,
    weights: np.ndarray | None = None,
) -> np.ndarray:
    """Predicted minus measured error ``[n]``, in percentage points, of each model by the law of all others.

    The search for each law begins at the ``estimate`` of all. NaN where the others do not determine the law.
    """
    n = len(error)
    others = np.array([np.delete(np.arange(n), i) for i in range(n)])
    chosen = frontier_for(frontier, n - 1)
    points = frontier_points(chosen, np.log(x)[others], np.log(error)[others])
    if weights is not None:
        points = replace(points, weight=weights[others])
    params = fit_many(law, points, loss_for(chosen, loss), estimate.params)
    predicted = np.array([law.error(x[i : i + 1], params[i])[0] for i in range(n)])
    return 100 * (predicted - error)


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


def joint_verdict(law: Law, x: np.ndarray, error: np.ndarray, estimate: Estimate) -> str:
    """The verdict on a law of several scales ``x`` ``[n, inputs]``.

    ``scaling`` where by AICc it explains the errors better than a constant does, and they fall if all scales grow.
    """
    n = len(error)
    spread = float(np.log(error).var())
    constant = n * np.log(spread) + 4 + 12 / (n - 3) if n > 3 else np.inf
    if not np.isfinite(estimate.aicc):
        return TOO_FEW
    centre = np.exp(np.log(x).mean(0))
    falls = np.diff(law.error(np.stack([centre, 2 * centre]), estimate.params))[0] < 0
    return SCALING if estimate.aicc < constant and falls else NO_SCALING


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
    from clipeval.scaling.uncertainty.methods import uncertainty

    power = LAWS["power"]
    return uncertainty(power, x, error, fit(power, x, error), draws=1).intervals["alpha"]

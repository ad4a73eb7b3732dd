"""Fitting a law to points: least squares, Huber or a quantile of the log residuals, with known or equal weights."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from clipeval.errors import MeasureError
from clipeval.scaling.frontier import Points
from clipeval.scaling.laws.law import Law, vary
from clipeval.scaling.minimise import HUBER, Data, Loss, Minimum, minimise
from clipeval.scaling.minimise import LEAST_SQUARES as SQUARES

SMOOTHING = 1e-3
"""Quantile fits of curves are smoothed over this much of ln E: 0.1 % of an error."""
FLAT = 1e-5
"""Steepness below which the end of a search counts as a minimum."""
SAME = 1e-6
"""Relative difference below which two objectives are the same minimum."""
EXACT = 1e-20
"""A mean objective below which residuals are rounding errors."""

LEAST_SQUARES, WEIGHTED = "least-squares", "weighted"
ESTIMATORS: dict[str, Loss] = {LEAST_SQUARES: SQUARES, "huber": HUBER, WEIGHTED: SQUARES}
"""What is minimised by name; ``weighted`` is least squares weighted by known evaluation noise."""


@dataclass(frozen=True)
class Estimate:
    """Fitted parameters and how good the fit is.

    ``rss`` is the (weighted) sum of squared residuals of ln E, ``r2`` is measured on ln E, ``aicc`` is infinite where
    n - k - 1 <= 0 (k counts the residual variance too). ``converged`` is a certificate: from several starts the best
    objective was reached again, and its gradient is zero there; ``starts`` holds the objectives of all starts.
    """

    law: str
    params: np.ndarray
    names: tuple[str, ...]
    n: int
    rss: float
    r2: float
    aicc: float
    bic: float
    converged: bool = True
    starts: tuple[float, ...] = field(default=())

    def __getitem__(self, name: str) -> float:
        """A parameter by name; NaN for one the law does not have."""
        return float(self.params[self.names.index(name)]) if name in self.names else float("nan")


def fit(law: Law, points: Points, loss: Loss = SQUARES) -> Estimate:
    """The parameters of ``law`` for one set of points (of a batch of one). Those without weight are not there.

    The search begins at every start of the law and the best end counts; laws linear in logarithms are solved at once.
    Raises MeasureError where the points are too few or too alike to determine the parameters.
    """
    on = points.weight[0] > 0
    log_x, log_error, weight = points.log_x[0, on], points.log_error[0, on], points.weight[0, on]
    _check_points(law, log_x)
    scale = law.log_scale(log_x)
    data = Data((log_x - scale)[None], log_error[None], weight[None])
    theta = law.closed_form(data, loss)
    if theta is not None:
        return _estimate(law, theta[0], scale, data, loss)
    found = _search(law, data, loss)
    if not np.isfinite(found.objective).any():
        raise MeasureError(f"law '{law.name}': no start leads to a finite sum of squares. Choose another law.")
    best = int(np.nanargmin(found.objective))
    return replace(
        _estimate(law, found.theta[best], scale, data, loss),
        converged=_certified(found, best, len(log_error)),
        starts=tuple(found.objective.tolist()),
    )


def fit_many(law: Law, points: Points, loss: Loss, start: np.ndarray) -> np.ndarray:
    """Parameters ``[draws, k]`` for the points of each draw, searched from ``start``, ``[k]`` or ``[draws, k]``.

    NaN where the points of a draw do not determine them.
    """
    scale = law.log_scale(points.log_x[0])
    data = Data(points.log_x - scale, points.log_error, points.weight)
    begin = np.broadcast_to(law.coordinates(start, scale), (len(data.weights), start.shape[-1]))
    theta = law.closed_form(data, loss, begin)
    if theta is None:
        bounds = law.bounds(data.log_x[0], np.exp(points.log_error))
        theta = minimise(law, data, begin, bounds, loss).theta
        theta = np.where(vary(law.varying(data.log_x), data.weights)[:, None], theta, np.nan)
    with np.errstate(over="ignore", invalid="ignore"):
        return law.parameters(theta, scale)


def _check_points(law: Law, log_x: np.ndarray) -> None:
    n, needed = len(log_x), len(law.names)
    if n < needed:
        raise MeasureError(
            f"law '{law.name}' has {needed} parameters, but there are only {n} points. Use a simpler law."
        )
    if not vary(law.varying(log_x[None]), np.ones((1, n)))[0]:
        raise MeasureError(
            f"law '{law.name}': the scales of the {n} points do not vary, or vary together, so that its exponents are "
            "not determined. Add models of other scales."
        )


def _search(law: Law, data: Data, loss: Loss) -> Minimum:
    log_x, error = data.log_x[0], np.exp(data.log_error[0])
    starts = law.starts(log_x, error)
    repeated = Data(*(np.broadcast_to(part, (len(starts), *part.shape[1:])) for part in vars(data).values()))
    return minimise(law, repeated, starts, law.bounds(log_x, error), loss)


def _certified(found: Minimum, best: int, n: int) -> bool:
    """Whether a second start came to the same objective, and the best end is flat or an exact fit."""
    lowest = found.objective[best]
    if lowest <= EXACT * n:
        return True
    again = np.count_nonzero(found.objective <= lowest * (1 + SAME))
    return bool(again >= 2 and found.steepness[best] <= FLAT)


def _estimate(law: Law, theta: np.ndarray, scale: np.ndarray, data: Data, loss: Loss) -> Estimate:
    value, _ = law.log_error(data.log_x, theta[None])
    residual, weights, log_error = (data.log_error - value)[0], data.weights[0], data.log_error[0]
    n, k = len(residual), len(theta) + 1
    rss = float((weights * residual**2).sum())
    total = float((weights * (log_error - np.average(log_error, weights=weights)) ** 2).sum())
    mean_price = float((weights * loss.cost(residual)).sum()) / n
    # -2 ln likelihood less n (1 + ln 2 pi): normal, or asymmetric Laplace for losses that grow linearly
    with np.errstate(divide="ignore"):
        if loss == SQUARES:
            deviance = n * np.log(rss / n)
        else:
            spread = mean_price / (2 * loss.delta * loss.tau * (1 - loss.tau))
            deviance = 2 * n * np.log(spread) + n * (1 - np.log(2 * np.pi))
    with np.errstate(over="ignore", invalid="ignore"):
        params = law.parameters(theta, scale)
    if not np.isfinite(params).all():
        raise MeasureError(f"law '{law.name}': the points lead to no finite parameters. Choose another law.")
    return Estimate(
        law=law.name,
        params=params,
        names=law.names,
        n=n,
        rss=rss,
        r2=1 - rss / total if total > 0 else float("nan"),
        aicc=float(deviance + 2 * k + 2 * k * (k + 1) / (n - k - 1)) if n - k - 1 > 0 else float("inf"),
        bic=float(deviance + k * np.log(n)),
    )

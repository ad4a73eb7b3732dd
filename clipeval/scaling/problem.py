"""The points of a law and how it is fitted to them: made once, and taken by all that ask what the law says."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from clipeval.errors import MeasureError, UsageError
from clipeval.scaling.estimate import SMOOTHING, Estimate, fit, fit_many
from clipeval.scaling.frontier import FRONTIERS, Frontier, Points, frontier_for
from clipeval.scaling.laws.law import Law
from clipeval.scaling.minimise import LEAST_SQUARES, Loss

DRAWS = 2000


@dataclass(frozen=True, eq=False)
class Problem:
    """A law, the points ``x`` (``[n]`` or ``[n, inputs]``) and ``error`` ``[n]``, and how it is fitted to them.

    ``frontier`` is ``none`` where n is too small for the one that was asked for. ``weights`` ``[n]`` are proportional
    to inverse variances of ln E; they, and laws of several scales, need frontier ``none``. ``x_tolerance``, shaped as
    ``x``, is the relative error that a rounded scale may have. ``draws`` and ``seed`` are those of the bootstrap.
    ``groups`` ``[n]`` are labels of points that err together; without them all are independent.
    """

    law: Law
    x: np.ndarray
    error: np.ndarray
    frontier: str = "none"
    loss: Loss = LEAST_SQUARES
    weights: np.ndarray | None = None
    x_tolerance: np.ndarray | None = None
    draws: int = DRAWS
    seed: int = 0
    groups: np.ndarray | None = None

    def __post_init__(self) -> None:
        """Raises UsageError for what does not go together."""
        object.__setattr__(self, "frontier", frontier_for(self.frontier, len(self.error)).name)
        if self.frontier != "none" and self.weights is not None:
            raise UsageError(f"frontier '{self.frontier}' does not go with weights. Use 'none'.")
        if self.frontier != "none" and self.law.inputs > 1:
            raise UsageError(f"frontier '{self.frontier}' orders models by one scale, not {self.law.inputs}. Use none.")
        if self.seen.tau != 0.5 and self.loss != LEAST_SQUARES:
            raise UsageError(f"frontier '{self.frontier}' has a loss of its own. Use another one, or least squares.")

    @property
    def seen(self) -> Frontier:
        """The points that the law is fitted to."""
        return FRONTIERS[self.frontier]

    @property
    def price(self) -> Loss:
        """The loss that looks at the quantile that the frontier asks for."""
        return self.loss if self.seen.tau == 0.5 else Loss(delta=SMOOTHING, tau=self.seen.tau)

    @cached_property
    def log_x(self) -> np.ndarray:
        """Natural logarithms of the scales, shaped as ``x``."""
        return np.log(self.x)

    @cached_property
    def log_error(self) -> np.ndarray:
        """ln E ``[n]``."""
        return np.log(self.error)

    @cached_property
    def weight(self) -> np.ndarray:
        """Weights ``[n]`` with a mean of 1."""
        return np.ones(len(self.error)) if self.weights is None else self.weights / np.mean(self.weights)

    @property
    def freedom(self) -> int:
        """Points minus parameters."""
        return len(self.error) - len(self.law.names)

    @cached_property
    def estimate(self) -> Estimate:
        """The fitted law. Raises MeasureError where a value is not positive and finite, and where the points on the
        frontier are too few or too alike to determine the parameters."""
        self._require_numbers()
        return fit(self.law, self.points(self.log_x[None], self.log_error[None], self.weight[None]), self.price)

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
        return np.log(self.law.error(self.x, self.estimate.params))

    def where(self, keep: np.ndarray) -> Problem:
        """The points at which the mask ``keep`` ``[n]`` holds."""
        optional = (self.weights, self.x_tolerance, self.groups)
        weights, tolerance, groups = (part if part is None else part[keep] for part in optional)
        x, error = self.x[keep], self.error[keep]
        return replace(self, x=x, error=error, weights=weights, x_tolerance=tolerance, groups=groups)

    def points(self, log_x: np.ndarray, log_error: np.ndarray, weights: np.ndarray | None = None) -> Points:
        """The points that the frontier keeps of data sets ``[draws, n]``; ``weights`` count without a frontier."""
        kept = self.seen.points(log_x, log_error)
        return kept if weights is None or self.frontier != "none" else replace(kept, weight=weights)

    def refit(
        self,
        log_x: np.ndarray,
        log_error: np.ndarray,
        weights: np.ndarray | None = None,
        start: np.ndarray | None = None,
    ) -> np.ndarray:
        """Parameters ``[draws, k]`` for the frontiers of data sets ``[draws, n]``, searched from those of ``start``
        ``[draws, k]`` or else from the estimate."""
        begin = self.estimate.params if start is None else start
        return fit_many(self.law, self.points(log_x, log_error, weights), self.price, begin)

    def _require_numbers(self) -> None:
        n, inputs = len(self.error), self.law.inputs
        if self.x.shape != ((n,) if inputs == 1 else (n, inputs)):
            raise MeasureError(
                f"law '{self.law.name}' needs {inputs} scale(s) per model: x has shape {self.x.shape} for {n} errors."
            )
        for what, values in (("error", self.error), ("scale", self.x)):
            good = np.isfinite(values) & (values > 0)
            wrong = np.flatnonzero(~(good if good.ndim == 1 else good.all(axis=1)))
            if len(wrong):
                raise MeasureError(
                    f"{what} of point {wrong[0]} is {values[wrong[0]]}: a law between logarithms needs positive, "
                    "finite values. Leave the model out or correct its row."
                )


def noise_weights(problem: Problem, n_test: np.ndarray) -> np.ndarray:
    """Weights ``[n]`` from evaluation noise on ``n_test`` samples and the scatter between models, which is fitted.

    The variance of ln E is (1 - E) / (E * n_test) for ``n_test`` independent outcomes, plus a variance common to all
    models that makes the weighted squared residuals add up to the degrees of freedom (Paule and Mandel 1982, J. Res.
    NBS 87:377); that one is 0 where evaluation noise alone explains the scatter.
    """
    from scipy.optimize import brentq

    known = (1 - problem.error) / (problem.error * n_test)
    if problem.freedom <= 0:
        return 1 / known

    def excess(between: float) -> float:
        weighted = replace(problem, weights=1 / (known + between))
        return float((weighted.weights * (problem.log_error - weighted.predicted()) ** 2).sum() - problem.freedom)

    if excess(0.0) <= 0:
        return 1 / known
    # with n times their variance about the mean, residuals cannot add up to more than 1
    between = brentq(excess, 0.0, len(known) * float(np.var(problem.log_error)), xtol=1e-14, rtol=1e-12)
    return 1 / (known + between)

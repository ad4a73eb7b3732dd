"""What a scaling law is, and what fitting one gives."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np


class Law(Protocol):
    """A parametric law for the error ``E`` in [0, 1] as a function of one or more scales.

    ``x`` is ``[n]`` for laws of one variable and ``[n, inputs]`` for joint laws, positive; parameters are arrays with
    ``len(names)`` entries in the order of ``names``, in their natural units (not logarithms). Where ``params`` is
    ``[draws, len(names)]`` the result is ``[draws, n]``, so that bootstrap draws are evaluated at once.
    """

    name: str
    names: tuple[str, ...]
    """Parameter names; ``alpha``, ``beta`` and ``e_inf`` mean the same in every law: E = beta * x**alpha + e_inf."""
    inputs: int

    def error(self, x: np.ndarray, params: np.ndarray) -> np.ndarray:
        """The predicted error."""
        ...

    def inverse(self, error: np.ndarray, params: np.ndarray) -> np.ndarray:
        """The scale at which the law of one variable reaches each ``error`` ``[n]``; NaN where it never does."""
        ...

    def fit_log(self, x: np.ndarray, error: np.ndarray, weights: np.ndarray | None = None) -> Estimate:
        """Least squares on log residuals. Raises MeasureError when there are fewer points than parameters."""
        ...


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


@dataclass(frozen=True)
class Interval:
    """A 95 % interval and the method behind it; NaN bounds and a ``reason`` where no honest one can be given."""

    low: float
    high: float
    method: str
    reason: str = ""

"""scikit-learn's logistic regression, what small problems are fitted with."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from array_api_compat import array_namespace

from clipeval.tasks.accuracy import Labelled

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression

_ITERATIONS = (1_000, 10_000)
"""L-BFGS iterations allowed, and the second allowance for a fit that has not converged by then."""


@dataclass(frozen=True)
class Fitted:
    """``weights`` ``[K, D]`` and ``bias`` ``[K]``, where the embeddings live, for ``classes`` ``[K]``, ascending; and
    whether the fit converged."""

    weights: Any
    bias: Any
    classes: np.ndarray
    converged: bool


class Fits(Protocol):
    """Fits to the same rows at any C."""

    classes: np.ndarray

    def fit(self, c: float, start: Fitted | None = None) -> Fitted:
        """The fit at ``c``, looked for from ``start``, another fit to the same classes."""
        ...


class ReferenceFits:
    """Fits by scikit-learn (L-BFGS, L2 penalty) to the unit embeddings of ``rows``."""

    def __init__(self, rows: Labelled, tolerance: float) -> None:
        """``tolerance`` is that of the gradient's largest entry."""
        self.classes = np.unique(rows.labels)
        self._rows, self._tolerance = rows, tolerance

    def fit(self, c: float, start: Fitted | None = None) -> Fitted:
        """The fit at ``c`` from ``start``; not converged where L-BFGS did not even in a second run."""
        from sklearn.linear_model import LogisticRegression

        estimator = LogisticRegression(solver="lbfgs", warm_start=True, tol=self._tolerance, C=float(c))
        two = len(self.classes) == 2  # one row, for the second class against the first
        if start is not None:
            estimator.coef_ = start.weights[1:] if two else start.weights
            estimator.intercept_ = start.bias[1:] if two else start.bias
        converged = _fit(estimator, self._rows)
        weights, bias = estimator.coef_, estimator.intercept_
        if two:
            xp = array_namespace(weights)
            weights, bias = xp.concat([-weights, weights], axis=0), xp.concat([-bias, bias], axis=0)
        return Fitted(weights, bias, estimator.classes_, converged)


def _fit(estimator: LogisticRegression, rows: Labelled) -> bool:
    """Fit from where the estimator stands. False where L-BFGS did not converge even in a second run."""
    from sklearn.exceptions import ConvergenceWarning

    for iterations in _ITERATIONS:
        estimator.max_iter = iterations
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            warnings.filterwarnings("ignore", "The number of unique classes")  # 1-shot probes are meant
            estimator.fit(rows.embeddings, rows.labels)
        for warning in caught:
            if not issubclass(warning.category, ConvergenceWarning):
                warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
        if not any(issubclass(warning.category, ConvergenceWarning) for warning in caught):
            return True
    return False


@contextmanager
def array_api(array: Any) -> Iterator[None]:
    """Let scikit-learn compute where ``array`` lives. It refuses to unless SciPy was told of it by this variable."""
    if isinstance(array, np.ndarray):
        yield
        return
    import sklearn

    os.environ.setdefault("SCIPY_ARRAY_API", "1")
    with sklearn.config_context(array_api_dispatch=True):
        yield

"""One fitted law with its uncertainty: what comparisons, forecasts, tables and figures read."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clipeval import vocabulary
from clipeval.scaling.estimate import Estimate
from clipeval.scaling.laws import Law
from clipeval.scaling.points import Checkpoints
from clipeval.scaling.problem import Problem
from clipeval.scaling.uncertainty.methods import Uncertainty
from clipeval.scaling.validation import SCALING, TOO_FEW, decades_beyond

NAN = float("nan")
GUARD = 1.0
"""Decades beyond the data from which an extrapolation is one too far."""
_BAND_DRAWS = 20_000


@dataclass(frozen=True, repr=False)
class Fit:
    """A law fitted to the checkpoints of one source; without an ``estimate`` where they do not determine it.

    ``known`` holds the intervals of the parameters and draws of them. Differences from unseen checkpoints,
    ``holdout_mae`` and ``loo_mae``, are in percentage points, of a loss in its own unit.
    """

    points: Checkpoints
    problem: Problem
    estimate: Estimate | None
    known: Uncertainty
    verdict: str
    holdout_mae: float = NAN
    loo_mae: float = NAN
    notes: tuple[str, ...] = ()

    @classmethod
    def without_law(cls, points: Checkpoints, problem: Problem, reason: str) -> Fit:
        """Points that do not determine the law."""
        known = Uncertainty({}, np.empty((0, len(problem.law.names))), reason=reason)
        return cls(points, problem, None, known, TOO_FEW, notes=(reason,))

    def __repr__(self) -> str:
        return f"Fit({self.summary})"

    @property
    def summary(self) -> str:
        """One line: what it is of, and the parameters that were found."""
        _, dataset, metric, shots = self.points.cell
        what = f"{vocabulary.dataset(dataset, shots)} · {vocabulary.metric(metric).title} · {self.points.source}"
        found = dict(zip(self.estimate.names, self.estimate.params.tolist(), strict=True)) if self.estimate else {}
        values = ", ".join(f"{name} {value:.4g}" for name, value in found.items())
        return f"{what}: {self.law.name}{f' with {values}' if values else ''}, {self.n_points} points, {self.verdict}"

    @property
    def law(self) -> Law:
        """The form of the law."""
        return self.problem.law

    @property
    def frontier(self) -> str:
        """Which points it was fitted to."""
        return self.problem.frontier

    @property
    def n_points(self) -> int:
        """How many points these are."""
        return self.estimate.n if self.estimate else len(self.points.error)

    @property
    def extrapolates(self) -> bool:
        """Whether the law may be followed beyond its points, and crossed with others."""
        return self.verdict == SCALING and self.estimate is not None

    def error(self, x: np.ndarray) -> np.ndarray:
        """The predicted error at ``x``: ``[n]``."""
        if self.estimate is None:
            return np.full(len(x), NAN)
        return self.law.error(x, self.estimate.params)

    def band(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The 95 % interval of the predicted error at ``x``: two arrays ``[n]``, NaN without draws."""
        if len(self.known.draws) == 0:
            return np.full(len(x), NAN), np.full(len(x), NAN)
        with np.errstate(over="ignore", invalid="ignore"):
            error = self.law.error(x, self.known.draws[:_BAND_DRAWS])
            low, high = np.nanquantile(error, (0.025, 0.975), axis=0)
        return low, high

    def decades_beyond(self, x: np.ndarray) -> np.ndarray:
        """How far each ``x`` lies outside the fitted points, in decades of the scale that is furthest out; 0 inside."""
        return decades_beyond(self.points.x, x)

"""Which law the data prefer: every law through the same checkpoints, ranked by AICc."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from clipeval.errors import MeasureError, UsageError
from clipeval.scaling.estimate import Estimate
from clipeval.scaling.fitted import Fit
from clipeval.scaling.laws import LAWS, Law
from clipeval.scaling.problem import Problem
from clipeval.scaling.recipe import Recipe

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("task", "dataset", "metric", "shots", "source", "law", "n", "parameters", "aicc", "delta_aicc", "bic", "r2")


def rank_laws(laws: Sequence[Law], x: np.ndarray, error: np.ndarray) -> tuple[list[Estimate], dict[str, str]]:
    """Estimates of ``laws`` by least squares through all points, the lowest AICc first, and by name why each of the
    others could not be fitted. ``x`` is ``[n]`` or ``[n, inputs]``, ``error`` ``[n]``."""
    found, refused = [], {}
    for law in laws:
        try:
            found.append(Problem(law, x, error).estimate)
        except MeasureError as refusal:
            refused[law.name] = str(refusal)
    return sorted(found, key=lambda estimate: estimate.aicc), refused


def ranking(fits: Sequence[Fit], recipe: Recipe) -> pd.DataFrame:
    """One row per law and fit with ``COLUMNS``, the best first.

    AICc and BIC compare laws through the same points only, so all are fitted to all checkpoints, without a frontier. A
    law with more parameters than the points allow is not there.
    """
    import pandas as pd

    rows = []
    for one in fits:
        points = one.points
        laws = [law for law in _candidates(recipe, points.cell[1]) if not (points.loss and law.of_shares)]
        found, _ = rank_laws(laws, points.x, points.error)
        comparable = [estimate for estimate in found if np.isfinite(estimate.aicc)]
        for estimate in comparable:
            above = estimate.aicc - comparable[0].aicc
            figures = (estimate.n, len(estimate.names), estimate.aicc, above, estimate.bic, estimate.r2)
            task, dataset, metric, shots = points.cell
            rows.append((task, dataset, metric, shots, points.source, estimate.law, *figures))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _candidates(recipe: Recipe, dataset: str) -> list[Law]:
    """The laws of as many scales as the recipe has."""
    laws = []
    for name in LAWS:
        try:
            laws.append(replace(recipe, law=name, frontier=None).law_of(dataset))
        except UsageError:  # a law of another number of scales
            continue
    return laws

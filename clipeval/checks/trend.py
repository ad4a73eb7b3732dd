"""Is a checkpoint as good as its compute? Its value against the scaling law of its source."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from clipeval.checks.measured import Results, Row
from clipeval.checks.verdicts import CANNOT_TELL, FAIL, PASS, Finding
from clipeval.errors import MeasureError, UsageError
from clipeval.results.columns import COMPUTE, compute
from clipeval.results.reading import read_tables
from clipeval.scaling.asked import FAMILY, Question
from clipeval.scaling.laws import LAWS
from clipeval.scaling.points import Checkpoints, select, source_of
from clipeval.scaling.problem import Problem
from clipeval.scaling.validation import decades_beyond

if TYPE_CHECKING:
    import pandas as pd


class Trends:
    """Scaling laws fitted to the baseline's rows or to other tables."""

    def __init__(self, baseline: Results) -> None:
        self._tables: dict[str, pd.DataFrame] = {"baseline": baseline.frame}

    def judge(self, row: Row, where: str) -> Finding:
        """Whether the value of ``row`` lies below the 95 % prediction interval of the power law of its source and
        compute; ``where`` is ``on_trend`` of the rule. Above it is no fault. Raises UsageError for an unknown table."""
        if where not in self._tables:
            self._tables[where] = read_tables([where])
        try:
            return _judged(row, self._tables[where], where)
        except (MeasureError, UsageError) as error:
            return Finding("on_trend", CANNOT_TELL, f"no scaling law in {where}: {error}")


def prediction_interval(x: np.ndarray, error: np.ndarray, at: float) -> tuple[float, float]:
    """95 % interval of the error of one more checkpoint of compute ``at``, by the power law through all n points.

    ``x`` and ``error`` are ``[n]``, n > 2. Least squares of ln E on ln x with Student's t (Draper and Smith 1998,
    Applied Regression Analysis, section 3.2). Raises MeasureError for points that determine no law.
    """
    from scipy.special import stdtrit

    law = LAWS["power"]
    found = Problem(law, x, error).estimate
    n = len(x)
    if n < 3:
        raise MeasureError(f"{n} checkpoints leave no scatter about a law.")
    logs = np.log(x)
    leverage = 1 / n + (np.log(at) - logs.mean()) ** 2 / np.sum((logs - logs.mean()) ** 2)
    half = stdtrit(n - 2, 0.975) * np.sqrt(found.rss / (n - 2) * (1 + leverage))
    centre = np.log(law.error(np.array([at]), found.params)[0])
    return float(np.exp(centre - half)), float(np.exp(centre + half))


def _judged(row: Row, table: pd.DataFrame, where: str) -> Finding:
    import pandas as pd

    own = pd.DataFrame([row])
    at = float(compute(own)[0])
    source = source_of(own, FAMILY)[0]
    if not at > 0 or not source:
        raise MeasureError("the checkpoint's source or compute (gmacs_total) is not known.")
    points = _points(row, table, str(source))
    low, high = prediction_interval(points.x, points.error, at)
    beyond = float(decades_beyond(points.x, np.array([at]))[0])
    far = f", {beyond:.1f} decades of compute beyond them" if beyond > 0 else ""
    worst, best = points.value(high), points.value(low)
    ends = sorted((worst, best))
    said = f"the law of {len(points.x)} checkpoints of {source} in {where} predicts {ends[0]:.4f} to {ends[1]:.4f}{far}"
    value, sign = row["value"], -1 if points.loss else 1
    if sign * value < sign * worst:
        return Finding("on_trend", FAIL, f"{value:.4f} is {'above' if points.loss else 'below'} the trend: {said}")
    within = sign * value <= sign * best
    better = "below" if points.loss else "above"
    return Finding("on_trend", PASS, f"on the trend: {said}" if within else f"{better} the trend: {said}")


def _points(row: Row, table: pd.DataFrame, source: str) -> Checkpoints:
    """The other checkpoints of the same source on the same cell."""
    others = table[(table["model"] != row["model"]).fillna(True).to_numpy(bool)]
    if row.get("checkpoint_sha256"):
        others = others[(others["checkpoint_sha256"] != row["checkpoint_sha256"]).fillna(True).to_numpy(bool)]
    exactly = "".join(f"[{c}]" if c in "*?[" else c for c in row["dataset"])
    selection = select(others, Question(row["task"], (exactly,), row["metric"], (COMPUTE,), FAMILY))
    for points in selection.points:
        if points.source == source and points.cell[3] == row["shots"]:
            return points
    there = ", ".join(sorted({points.source for points in selection.points}))
    raise MeasureError(f"there is no checkpoint of {source} (there are: {there}).")

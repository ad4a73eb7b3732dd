"""Effective robustness: is a source more accurate under a distribution shift than its ImageNet accuracy explains?

Accuracies under a shift and without it lie on a line between their logits (Taori et al. 2020, arXiv:2007.00644;
Miller et al. 2021, arXiv:2107.04649). One line is fitted per source, and the lines are compared at the same accuracy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from clipeval.errors import MeasureError, UsageError
from clipeval.scaling.asked import FAMILY, Question
from clipeval.scaling.points import Checkpoints, select
from clipeval.stats.significance import holm, t_interval, t_test

if TYPE_CHECKING:
    import pandas as pd

SHIFTS = ("imagenetv2", "imagenet_sketch", "imagenet-a", "imagenet-r", "objectnet", "imagenet_robustness")
"""The five shifts of Cherti et al. 2023, and their mean."""
TASK = "zeroshot_classification"
_KEY = ("model", "arch", "pretrained", "samples_seen")


@dataclass(frozen=True)
class Line:
    """logit(accuracy under the shift) = level + slope * (logit(accuracy) - centre), by least squares.

    ``se_level``, ``se_slope`` are standard errors with ``n`` - 2 degrees of freedom, NaN below 3 checkpoints. ``low``
    and ``high`` are the range of accuracies without the shift.
    """

    dataset: str
    source: str
    n: int
    centre: float
    level: float
    slope: float
    se_level: float
    se_slope: float
    low: float
    high: float

    def at(self, accuracy: float) -> tuple[float, float]:
        """The logit of the accuracy under the shift at an accuracy without it, and its standard error."""
        away = _logit(np.array(accuracy)).item() - self.centre
        return self.level + self.slope * away, float(np.hypot(self.se_level, self.se_slope * away))


@dataclass(frozen=True)
class Advantage:
    """How much more accurate a is than b under the shift where both are equally accurate without it.

    ``at`` is that accuracy, the middle of the range that both sources share. ``logit`` is the difference of the logits
    and ``points`` that of the accuracies (b being on its line), each with a 95 % interval; ``p`` is by
    ``significance.t_test``.
    """

    dataset: str
    source_a: str
    source_b: str
    at: float
    logit: float
    logit_low: float
    logit_high: float
    points: float
    points_low: float
    points_high: float
    p: float
    test: str
    p_holm: float = float("nan")


def effective_robustness(
    table: pd.DataFrame,
    *,
    baseline: str = "imagenet1k",
    shifts: Sequence[str] = SHIFTS,
    metric: str = "acc1",
    by: str = FAMILY,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Two tables: the line of each shift and source, and for each shift and pair of sources their difference.

    The columns are the fields of ``Line`` with 95 % intervals of level and slope, and of ``Advantage``. Raises
    UsageError and MeasureError as ``rows.select`` does, and MeasureError where no source has two checkpoints.
    """
    import pandas as pd

    question = Question(TASK, (baseline, *shifts), metric, ("samples_seen",), by)
    by_cell = {(c.cell[1], c.source): c for c in select(table, question).points}
    if any(checkpoints.loss for checkpoints in by_cell.values()):
        raise UsageError(f"effective robustness is of accuracies, and {metric} is a loss. Name another metric.")
    lines = []
    for (dataset, source), checkpoints in by_cell.items():
        if dataset != baseline and (baseline, source) in by_cell:
            lines.append(_line(dataset, source, *_paired(by_cell[baseline, source], checkpoints)))
    lines = [line for line in lines if line.n > 1]
    if not lines:
        raise MeasureError(f"no source has two checkpoints measured on {baseline} and on a shift of it.")
    pairs = [_advantage(a, b) for a, b in combinations(lines, 2) if a.dataset == b.dataset and _overlap(a, b)]
    corrected = holm(np.array([pair.p for pair in pairs]))
    pairs = [replace(pair, p_holm=float(p)) for pair, p in zip(pairs, corrected, strict=True)]
    return pd.DataFrame([_row(line) for line in lines]), pd.DataFrame([vars(pair) for pair in pairs])


def _paired(without: Checkpoints, under: Checkpoints) -> tuple[np.ndarray, np.ndarray]:
    """Accuracies of the checkpoints measured on both: without and under the shift."""
    key = [name for name in _KEY if name in without.table and name in under.table]
    both = without.table.assign(accuracy=1 - without.error)[[*key, "accuracy"]].merge(
        under.table.assign(shifted=1 - under.error)[[*key, "shifted"]], on=key
    )
    return both["accuracy"].to_numpy(np.float64), both["shifted"].to_numpy(np.float64)


def _line(dataset: str, source: str, accuracy: np.ndarray, shifted: np.ndarray) -> Line:
    usable = (accuracy > 0) & (shifted > 0)
    if not usable.all():
        raise MeasureError(f"{dataset}, {source}: an accuracy of 0 has no logit. Take the checkpoint out of the table.")
    x, y = _logit(accuracy), _logit(shifted)
    if len(x) < 2 or np.ptp(x) == 0:
        return Line(dataset, source, min(len(x), 1), *([float("nan")] * 7))
    centre = float(x.mean())
    spread = float(np.sum((x - centre) ** 2))
    slope = float(np.sum((x - centre) * y) / spread)
    residual = y - y.mean() - slope * (x - centre)
    sigma = float(np.sqrt(residual @ residual / (len(x) - 2))) if len(x) > 2 else float("nan")
    errors = sigma / len(x) ** 0.5, sigma / spread**0.5
    return Line(dataset, source, len(x), centre, float(y.mean()), slope, *errors, accuracy.min(), accuracy.max())


def _overlap(a: Line, b: Line) -> bool:
    return max(a.low, b.low) <= min(a.high, b.high)


def _advantage(a: Line, b: Line) -> Advantage:
    ends = _logit(np.array([max(a.low, b.low), min(a.high, b.high)]))
    at = float(_expit(ends.mean()))
    (of_a, se_a), (of_b, se_b) = a.at(at), b.at(at)
    test = t_test(of_a - of_b, np.array([se_a, se_b]) ** 2, np.array([a.n, b.n]) - 2.0)
    points = (_expit(of_b + np.array([test.delta, test.low, test.high])) - _expit(of_b)).tolist()
    return Advantage(
        a.dataset, a.source, b.source, at, test.delta, test.low, test.high, points[0], points[1], points[2],
        test.p, test.test,
    )  # fmt: skip


def _row(line: Line) -> dict[str, object]:
    slope = t_interval(line.slope, line.se_slope, line.n - 2)
    level = t_interval(line.level, line.se_level, line.n - 2)
    return {
        "dataset": line.dataset,
        "source": line.source,
        "n": line.n,
        "slope": line.slope,
        "slope_low": slope[0],
        "slope_high": slope[1],
        "level": line.level,
        "level_low": level[0],
        "level_high": level[1],
        "at": float(_expit(line.centre)),
    }


def _logit(accuracy: np.ndarray) -> np.ndarray:
    return np.log(accuracy) - np.log1p(-accuracy)


def _expit(value: np.ndarray | float) -> np.ndarray:
    return 1 / (1 + np.exp(-np.asarray(value)))

"""The architecture and the samples seen that a compute budget buys the lowest error with, read off a joint law."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from clipeval.errors import MeasureError, UsageError
from clipeval.results.columns import archs, numbers
from clipeval.scaling.fitted import GUARD, Fit
from clipeval.scaling.laws import LAWS
from clipeval.scaling.recipe import fit_problem

if TYPE_CHECKING:
    import pandas as pd

FLAT = 0.01
"""A choice is as good as the best one when its error is at most 1 % higher, relative to it."""
_GRID = 400
_COLUMNS = (
    *("task", "dataset", "metric", "shots", "source", "kind", "arch", "budget", "gmacs", "samples_seen"),
    *(
        "error",
        "error_low",
        "error_high",
        "excess",
        "decades_beyond",
        "flat_low",
        "flat_high",
        "gmacs_low",
        "gmacs_high",
    ),
    "edge",
    "unit",
)
SIDE_BY_SIDE = ("joint_nd", "joint_shared")
"""Laws of size and samples whose optima are shown beside that of the law that was fitted."""
_BESIDE = (
    *("task", "dataset", "metric", "shots", "source", "law", "aicc", "gmacs", "gmacs_low", "gmacs_high", "edge"),
    *("samples_seen", "error", "error_low", "error_high", "unit", "reason", "conclusion"),
)
_SIZE, _SEEN, _UNIQUE = "gmacs", "samples_seen", "unique_samples"


def require_joint(budget: float, x: str) -> None:
    """Raises UsageError where no optimum can be read off a law of ``x``, or ``budget`` is not positive."""
    columns = tuple(name.strip() for name in x.split(","))
    if columns not in ((_SIZE, _SEEN), (_SIZE, _SEEN, _UNIQUE)):
        raise UsageError(f"--budget needs a joint law of --x {_SIZE},{_SEEN}[,{_UNIQUE}], not of {x}.")
    if not budget > 0:
        raise UsageError(f"--budget {budget}: must be a positive number of GMACs.")


def optimal(fits: Sequence[Fit], budget: float, x: str) -> pd.DataFrame:
    """How to spend ``budget`` (GMACs) on each source: one row per law for the optimum, one per architecture.

    The laws are joint ones of ``x`` = ``gmacs,samples_seen`` (or with ``unique_samples``, taken as the most that the
    source has). ``kind`` is ``optimum``, of any GMACs per sample within the range of the checkpoints, or
    ``architecture``, one of theirs. ``error_low`` and ``error_high`` are the 95 % interval; ``gmacs_low`` and
    ``gmacs_high`` that of the optimum, NaN where it is open: where more than 2.5 % of the draws end at the smallest or
    the largest checkpoint. ``edge`` is ``smallest`` or ``largest`` where the optimum itself does, which may then lie
    beyond. ``flat_low`` and ``flat_high`` are the range of GMACs per sample within which the error stays within 1 % of
    the lowest; ``excess`` is the error relative to the optimum, minus 1. ``unit`` is what errors are shown in: 100 for
    percents, 1 for a loss.

    A law that ``no_advice`` refuses has no row, nor has a choice more than a decade beyond the data. Raises UsageError
    for another x or a budget that is not positive.
    """
    import pandas as pd

    require_joint(budget, x)
    rows = [row for fit in fits if not no_advice(fit, budget) for row in _rows(fit, budget)]
    return pd.DataFrame(rows, columns=list(_COLUMNS))


def no_advice(fit: Fit, budget: float) -> str:
    """Why nothing can be said of the best use of ``budget``; empty where something can."""
    if not fit.extrapolates:
        return f"no advice for a budget: {fit.verdict}"
    grid = _grid(fit)
    scales = _scales(fit, grid, budget)
    error = fit.error(scales)
    if not fit.points.loss and error.min() > 1:
        return "no advice for a budget: it is too small for this law, of which the errors are above 100 %"
    beyond = float(fit.decades_beyond(scales)[error.argmin()])
    return f"no advice for a budget: its best use lies {beyond:.1f} decades beyond the data" if beyond > GUARD else ""


def side_by_side(fits: Sequence[Fit], budget: float) -> pd.DataFrame:
    """The optimum of ``budget`` (GMACs) by each joint law through the same points: one row per fit and law.

    Sources that no law can be fitted to have none. AICc says which law the points prefer, ``reason`` why a law says
    nothing, and ``conclusion`` whether any size lies in the intervals of all of them. With one exponent for size and
    samples the best size grows as the square root of compute whatever the data, which only the others can contradict.
    """
    import pandas as pd

    rows = []
    for fit in fits:
        found = [_beside(fit, name, budget) for name in dict.fromkeys((fit.law.name, *SIDE_BY_SIDE))]
        task, dataset, metric, shots = fit.points.cell
        shared = {"task": task, "dataset": dataset, "metric": metric, "shots": shots, "source": fit.points.source}
        if any("aicc" in row for row in found):
            rows += [shared | row | {"conclusion": _agreement(found)} for row in found]
    return pd.DataFrame(rows, columns=list(_BESIDE))


def _beside(fit: Fit, name: str, budget: float) -> dict[str, Any]:
    """The optimum by the law ``name`` through the points of ``fit``, or why there is none."""
    if name != fit.law.name:
        law, x = LAWS[name], fit.points.x[:, :2]
        tolerance = fit.problem.x_tolerance
        problem = replace(fit.problem, law=law, x=x, x_tolerance=None if tolerance is None else tolerance[:, :2])
        try:
            fit = fit_problem(replace(fit.points, x=x), problem)
        except (MeasureError, np.linalg.LinAlgError) as refusal:
            return {"law": name, "reason": str(refusal)}
    if fit.estimate is None:
        return {"law": name, "reason": fit.known.reason}
    reason = no_advice(fit, budget)
    return {"law": name, "aicc": fit.estimate.aicc, "reason": reason} | ({} if reason else _rows(fit, budget)[0])


def _agreement(rows: Sequence[Mapping[str, Any]]) -> str:
    """Whether the best sizes of the laws that have one may be the same. Beyond an edge anything may be."""
    known = [row for row in rows if not row["reason"]]
    if len(known) < 2:
        return "not settled: fewer than two laws have a best size"
    inside = [row for row in known if not row["edge"]]
    low = [np.nan_to_num(row["gmacs_low"], nan=-np.inf) for row in inside]
    high = [np.nan_to_num(row["gmacs_high"], nan=np.inf) for row in inside]
    low += [row["gmacs"] for row in known if row["edge"] == "largest"]
    high += [row["gmacs"] for row in known if row["edge"] == "smallest"]
    if max(low, default=-np.inf) <= min(high, default=np.inf):
        return "the laws agree within their intervals"
    return "not settled: the best sizes of the laws differ by more than their intervals"


def joint_law(table: pd.DataFrame) -> tuple[str, str]:
    """The law and its scales to read an optimum off: with repeats where the table says how many samples are unique."""
    if "unique_samples" in table and table["unique_samples"].notna().any():
        return "joint_repeats", f"{_SIZE},{_SEEN},{_UNIQUE}"
    return "joint_nd", f"{_SIZE},{_SEEN}"


def _grid(fit: Fit) -> np.ndarray:
    sizes = fit.points.x[:, 0]
    return np.geomspace(sizes.min(), sizes.max(), _GRID)


def _rows(fit: Fit, budget: float) -> list[dict[str, Any]]:
    grid = _grid(fit)
    scales = _scales(fit, grid, budget)
    error = fit.error(scales)
    best = int(error.argmin())
    flat = grid[error <= error[best] * (1 + FLAT)]
    optimum = {"kind": "optimum", "arch": "", **_described(fit, grid[[best]], budget, error[best])[0]}
    optimum |= {"flat_low": float(flat[0]), "flat_high": float(flat[-1])}
    optimum["edge"] = "smallest" if best == 0 else "largest" if best == _GRID - 1 else ""
    if len(fit.known.draws) and not optimum["edge"]:
        chosen = fit.law.error(scales, fit.known.draws).argmin(axis=1)
        low, high = grid[np.quantile(chosen, (0.025, 0.975), method="nearest")]
        optimum["gmacs_low"] = float(low) if low > grid[0] else np.nan
        optimum["gmacs_high"] = float(high) if high < grid[-1] else np.nan
    choices = _architectures(fit)
    described = _described(fit, np.array(list(choices.values())), budget, error[best]) if choices else []
    rows = [{"kind": "architecture", "arch": arch, **row} for arch, row in zip(choices, described, strict=True)]
    usable = [row for row in rows if row["decades_beyond"] <= GUARD and (fit.points.loss or row["error"] <= 1)]
    task, dataset, metric, shots = fit.points.cell
    shared = {"task": task, "dataset": dataset, "metric": metric, "shots": shots, "source": fit.points.source}
    return [shared | {"unit": fit.points.unit} | row for row in (optimum, *usable)]


def _described(fit: Fit, gmacs: np.ndarray, budget: float, lowest: float) -> list[dict[str, Any]]:
    scales = _scales(fit, gmacs, budget)
    low, high = fit.band(scales)
    columns = {
        "budget": np.full(len(gmacs), budget),
        "gmacs": gmacs,
        "samples_seen": budget / gmacs,
        "error": fit.error(scales),
        "error_low": low,
        "error_high": high,
        "excess": fit.error(scales) / lowest - 1,
        "decades_beyond": fit.decades_beyond(scales),
    }
    return [dict(zip(columns, map(float, row), strict=True)) for row in zip(*columns.values(), strict=True)]


def _scales(fit: Fit, gmacs: np.ndarray, budget: float) -> np.ndarray:
    """The inputs of the law ``[n, inputs]`` when the whole budget goes into models of these GMACs per sample."""
    parts = [gmacs, budget / gmacs]
    if fit.law.inputs > len(parts):
        parts.append(np.full(len(gmacs), fit.points.x[:, 2].max()))
    return np.stack(parts, axis=1)


def _architectures(fit: Fit) -> dict[str, float]:
    """GMACs per sample of the architectures that were fitted, whatever their activation, in ascending order."""
    found = dict(zip(archs(fit.points.table), numbers(fit.points.table, _SIZE), strict=True))
    return {arch: gmacs for arch, gmacs in sorted(found.items(), key=lambda item: item[1]) if arch}

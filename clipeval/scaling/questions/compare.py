"""Do two sources scale differently? Exponents, the compute at which two laws cross, and what compute one saves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np

from clipeval.scaling.fitted import Fit
from clipeval.scaling.points import Cell
from clipeval.scaling.questions.exponents import difference
from clipeval.scaling.questions.matched import Matched, matched
from clipeval.scaling.recipe import fit_problem
from clipeval.stats.significance import Difference, holm

A_BETTER, B_BETTER, UNDETERMINED = "a-scales-better", "b-scales-better", "undetermined"
_LEVEL = 0.05
_GRID = 801
_NAN = float("nan")


@dataclass(frozen=True)
class Comparison:
    """Two laws of the same data set and metric. Intervals are 95 %; NaN where something cannot be given.

    ``alpha`` compares the exponents; its ``delta`` is negative where the error of a falls faster. ``crossover`` is NaN
    unless its interval stays within one decade of the compute of the points. ``multiplier`` is the compute that b
    needs, relative to a, to reach the error ``at_error``, which both reach within their own points; NaN unless the
    interval stays within one decade of either's own compute. Both laws are fitted to points of the same ``frontier``;
    it is empty where they are compared as they were fitted.
    """

    cell: Cell
    source_a: str
    source_b: str
    frontier: str
    alpha: Difference
    crossover: float
    crossover_low: float
    crossover_high: float
    at_error: float
    multiplier: float
    multiplier_low: float
    multiplier_high: float
    design: Matched
    note: str = ""
    p_holm: float = _NAN

    @property
    def verdict(self) -> str:
        """Which source scales better, after the correction for the number of comparisons made at once."""
        if not self.p_holm < _LEVEL:
            return UNDETERMINED
        return A_BETTER if self.alpha.delta < 0 else B_BETTER


def compare(fits: Sequence[Fit], as_fitted: bool = False) -> list[Comparison]:
    """Every pair of sources on every data set and metric, the p values corrected by Holm's method over all of them.

    The line of the best tenth lies below that of all models: both are fitted to the frontier that the source with fewer
    models has, unless they are to be compared ``as_fitted``.
    """
    cells: dict[Cell, list[Fit]] = {}
    for fit in fits:
        cells.setdefault(fit.points.cell, []).append(fit)
    pairs = [pair for group in cells.values() for pair in combinations(group, 2)]
    found = [compare_two(*pair) for pair in (pairs if as_fitted else _alike(pairs))]
    corrected = holm(np.array([comparison.alpha.p for comparison in found]))
    return [replace(comparison, p_holm=float(p)) for comparison, p in zip(found, corrected, strict=True)]


def _alike(pairs: Sequence[tuple[Fit, Fit]]) -> Iterator[tuple[Fit, Fit]]:
    again: dict[tuple[int, str], Fit] = {}
    for pair in pairs:
        frontier = min(pair, key=lambda fit: len(fit.points.error)).frontier
        for fit in pair:
            if (id(fit), frontier) not in again:
                again[id(fit), frontier] = _on(frontier, fit)
        a, b = (again[id(fit), frontier] for fit in pair)
        yield a, b


def _on(frontier: str, fit: Fit) -> Fit:
    if fit.estimate is None or fit.frontier == frontier:
        return fit
    return fit_problem(fit.points, replace(fit.problem, frontier=frontier))


def compare_two(a: Fit, b: Fit) -> Comparison:
    """One pair as they were fitted, without the correction for others."""
    crossover, note = (_NAN, _NAN, _NAN), ""
    at_error, multiplier = _NAN, (_NAN, _NAN, _NAN)
    stuck = [fit.points.source for fit in (a, b) if not fit.extrapolates]
    if stuck:
        note = f"no crossover: {' and '.join(stuck)} {'has' if len(stuck) == 1 else 'have'} no scaling law here"
    elif a.law.inputs > 1:
        note = "no crossover: laws of several scales meet along a curve"
    else:
        crossover, note = _crossover(a, b)
        at_error, multiplier, reason = _multiplier(a, b)
        note = "; ".join(part for part in (note, reason) if part)
    return Comparison(
        a.points.cell, a.points.source, b.points.source, a.frontier if a.frontier == b.frontier else "",
        difference(a, b), *crossover, at_error, *multiplier, design=matched(a.points, b.points), note=note,
    )  # fmt: skip


def _crossover(a: Fit, b: Fit) -> tuple[tuple[float, float, float], str]:
    """Where the two laws meet, with the 2.5 and 97.5 % quantiles over paired draws of both."""
    low, high = _span(a, b)
    of_a, of_b = _paired_draws(a, b)
    if len(of_a) == 0:
        return (_NAN, _NAN, _NAN), "crossover undetermined: too few points for an interval"
    point = float(_meet(a, b, *_params(a, b))[0])
    logs = _meet(a, b, of_a, of_b)
    if np.isnan(point) or np.isnan(logs).mean() > 0.025:
        return (_NAN, _NAN, _NAN), "crossover undetermined: the laws need not meet"
    bounds = np.quantile(logs[~np.isnan(logs)], (0.025, 0.975), method="nearest")
    with np.errstate(over="ignore"):
        at, at_low, at_high = (10.0 ** np.array([point, *bounds])).tolist()
    if bounds[0] < np.log10(low) - 1 or bounds[1] > np.log10(high) + 1:
        return (_NAN, at_low, at_high), "crossover undetermined: its interval leaves the data by more than a decade"
    return (at, at_low, at_high), ""


def _meet(a: Fit, b: Fit, of_a: np.ndarray, of_b: np.ndarray) -> np.ndarray:
    """log10 of the scale at which the laws meet, for each pair of parameter vectors ``[draws, k]``; NaN: nowhere.

    Two power laws meet once, possibly far away. Others are followed over two decades beyond the data on either side.
    """
    if a.law.name == b.law.name == "power":
        (beta_a, alpha_a), (beta_b, alpha_b) = (_power(fit, params) for fit, params in ((a, of_a), (b, of_b)))
        with np.errstate(all="ignore"):
            return np.log10(beta_b / beta_a) / (alpha_a - alpha_b)
    low, high = _span(a, b)
    grid = np.linspace(np.log10(low) - 2, np.log10(high) + 2, _GRID)
    gap = np.log(a.law.error(10**grid, of_a)) - np.log(b.law.error(10**grid, of_b))
    changes = np.diff(np.sign(gap), axis=1) != 0
    where = changes.argmax(axis=1)
    line = np.arange(len(gap))
    left, right = gap[line, where], gap[line, where + 1]
    with np.errstate(divide="ignore", invalid="ignore"):
        met = grid[where] + (grid[1] - grid[0]) * left / (left - right)
    return np.where(changes.any(axis=1), met, np.nan)


def _multiplier(a: Fit, b: Fit) -> tuple[float, tuple[float, float, float], str]:
    """The error in the middle of those that both laws reach within their points, the compute of b over that of a at
    this error with its interval, and why there is none."""
    reached = [fit.error(np.array([fit.points.x.max(), fit.points.x.min()])) for fit in (a, b)]
    lowest, highest, nothing = max(ends[0] for ends in reached), min(ends[1] for ends in reached), (_NAN, _NAN, _NAN)
    if not lowest <= highest:
        return _NAN, nothing, "no compute at equal error: the sources share no level of error"
    at = np.sqrt(np.array([lowest * highest]))
    params, draws = _params(a, b), _paired_draws(a, b)
    with np.errstate(all="ignore"):
        needed = [float(fit.law.inverse(at, p)[0, 0]) for fit, p in zip((a, b), params, strict=True)]
        spread = [np.log10(fit.law.inverse(at, p)[:, 0]) for fit, p in zip((a, b), draws, strict=True)]
    if len(spread[0]) == 0:
        return float(at[0]), (needed[1] / needed[0], _NAN, _NAN), ""
    if not all(_stays_near(fit, logs) for fit, logs in zip((a, b), spread, strict=True)):
        return float(at[0]), nothing, "compute at equal error undetermined: its interval leaves the data by a decade"
    low, high = np.nanquantile(spread[1] - spread[0], (0.025, 0.975), method="nearest")
    return float(at[0]), (needed[1] / needed[0], float(10**low), float(10**high)), ""


def _stays_near(fit: Fit, logs: np.ndarray) -> bool:
    """Whether 95 % of scales, given as log10, are within one decade of those of the fit."""
    low, high = np.log10(fit.points.x.min()) - 1, np.log10(fit.points.x.max()) + 1
    return bool((logs < low).mean() <= 0.025 and (logs > high).mean() <= 0.025 and np.isnan(logs).mean() <= 0.025)


def _paired_draws(a: Fit, b: Fit) -> tuple[np.ndarray, np.ndarray]:
    """As many draws of either law as there are of the one with more; none where one has none."""
    of_a, of_b = a.known.draws, b.known.draws
    most = max(len(of_a), len(of_b)) if len(of_a) and len(of_b) else 0
    return np.resize(of_a, (most, of_a.shape[1])), np.resize(of_b, (most, of_b.shape[1]))


def _params(a: Fit, b: Fit) -> tuple[np.ndarray, np.ndarray]:
    assert a.estimate is not None
    assert b.estimate is not None
    return a.estimate.params[None], b.estimate.params[None]


def _power(fit: Fit, params: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return params[:, fit.law.names.index("beta")], params[:, fit.law.names.index("alpha")]


def _span(a: Fit, b: Fit) -> tuple[float, float]:
    return min(a.points.x.min(), b.points.x.min()), max(a.points.x.max(), b.points.x.max())


def as_rows(comparisons: Sequence[Comparison]) -> list[dict[str, Any]]:
    """One dictionary per comparison, with the columns of the output in order."""
    rows = []
    for c in comparisons:
        task, dataset, metric, shots = c.cell
        rows.append(
            {
                "task": task,
                "dataset": dataset,
                "metric": metric,
                "source_a": c.source_a,
                "source_b": c.source_b,
                "delta_alpha": c.alpha.delta,
                "delta_low": c.alpha.low,
                "delta_high": c.alpha.high,
                "p": c.alpha.p,
                "p_holm": c.p_holm,
                "crossover": c.crossover,
                "crossover_low": c.crossover_low,
                "crossover_high": c.crossover_high,
                "verdict": c.verdict,
                "shots": shots,
                "frontier": c.frontier,
                "test": c.alpha.test,
                "p_welch": c.alpha.p_welch,
                "at_error": c.at_error,
                "compute_multiplier": c.multiplier,
                "compute_multiplier_low": c.multiplier_low,
                "compute_multiplier_high": c.multiplier_high,
                **{f"matched_{name}": value for name, value in vars(c.design).items()},
                "note": c.note,
            }
        )
    return rows

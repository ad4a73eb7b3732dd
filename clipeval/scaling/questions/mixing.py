"""``clipeval fit --mixtures``: error by the shares of training data and compute, and the mixture with the lowest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from clipeval.errors import MeasureError, UsageError
from clipeval.results.columns import mixed_sources, mixture_label, shares
from clipeval.results.mixture import PREFIX
from clipeval.scaling.laws.law import LEAST_WIDTH
from clipeval.scaling.points import Cell, Checkpoints, Selection
from clipeval.scaling.questions.mixtures import (
    MixtureLaw,
    best_mixture,
    fit_mixture,
    groups,
    laws_again,
    leave_mixture_out,
    lowest,
    require_mixtures,
)

if TYPE_CHECKING:
    import pandas as pd

NO_EFFECT = "the shares make no difference that can be seen: a law of compute alone forecasts mixtures as well"
_ENDS = (0.025, 0.975)
_LISTED = 2
_SAME = 0.01
"""Shares that differ by less are the same mixture."""


@dataclass(frozen=True)
class Runs:
    """The runs behind the laws of one or several data sets: ``shares`` ``[n, sources]``, ``log_x`` ``[n]`` and
    ``errors`` ``[tasks, n]``, of one cell each."""

    cells: tuple[Cell, ...]
    sources: tuple[str, ...]
    models: tuple[str, ...]
    shares: np.ndarray
    log_x: np.ndarray
    errors: np.ndarray
    unit: float

    @property
    def dataset(self) -> str:
        """The data set, or how many are averaged."""
        return self.cells[0][1] if len(self.cells) == 1 else f"mean of {len(self.cells)} data sets"


def mixing(selection: Selection, columns: Sequence[str], draws: int, seed: int) -> tuple[pd.DataFrame, list[str]]:
    """One row per data set and metric, and one per metric for the mean error of several data sets; and notes.

    Of each: the law's errors of mixtures that were left out (``loo_error``, relative; ``loo_error_without`` of a law
    without the shares), the best mixture at the largest scale ``at`` (``mix.SOURCE`` with ``_low`` and ``_high``), its
    predicted error, of the law (``error_low``, ``error_high``) and of one run (``run_low``, ``run_high``), whether it
    is a mean of mixtures tried (``inside``), the mixture with the lowest error measured at that scale (``measured``),
    the tried mixtures that it cannot be told apart from (``alike``), and a ``verdict``. Intervals are of 95 %. A law of
    one data set is lowest at a single source; more than one source can only be best for several data sets together.

    Raises UsageError for a table without shares and for several scales, MeasureError where no law can be fitted, as of
    too few mixtures.
    """
    import pandas as pd

    if len(columns) > 1:
        raise UsageError(f"--mixtures needs one scale, --x names {len(columns)}. Give --x gmacs_total.")
    table = pd.concat([points.table for points in selection.points])
    names = tuple(mixed_sources(table))
    if len(names) < 2:
        raise UsageError(
            "--mixtures: the results table has no shares of sources. Columns mix.SOURCE, one per source, say which "
            "part of a checkpoint's samples came from it; those of clipeval-train have them where `data` names several."
        )
    notes: list[str] = []
    rows: list[dict[str, Any]] = []
    refused: dict[str, str] = {}
    alone = [_runs(cell, points, names, notes) for cell, points in _by_cell(selection)]
    for runs in [*alone, *_together(alone)]:
        try:
            rows.append(_row(runs, columns[0], draws, np.random.default_rng(seed)))
        except MeasureError as refusal:
            refused[f"{runs.dataset} · {runs.cells[0][2]}"] = str(refusal)
    if not rows:
        raise MeasureError(f"--mixtures: {'; '.join(dict.fromkeys(refused.values()))}")
    notes += [f"{label}: {reason}" for label, reason in refused.items()]
    return pd.DataFrame(rows), list(dict.fromkeys(notes))


def _by_cell(selection: Selection) -> Iterator[tuple[Cell, list[Checkpoints]]]:
    cells = dict.fromkeys(points.cell for points in selection.points)
    for cell in cells:
        yield cell, [points for points in selection.points if points.cell == cell]


def _runs(cell: Cell, points: Sequence[Checkpoints], names: tuple[str, ...], notes: list[str]) -> Runs:
    """The points of all sources that are mixtures of ``names``."""
    import pandas as pd

    table = pd.concat([one.table for one in points])
    found = shares(table, names)
    known = ~np.isnan(found).any(1)
    if not known.all():
        notes.append(f"{int((~known).sum())} of {len(known)} points of {cell[1]} are of other sources, and left out")
    log_x, error = np.log(np.concatenate([one.x for one in points])), np.concatenate([one.error for one in points])
    models = tuple(table["model"].astype(str)[known])
    return Runs((cell,), names, models, found[known], log_x[known], error[known][None], points[0].unit)


def _together(alone: Sequence[Runs]) -> Iterator[Runs]:
    """Several data sets of the same metric, where the same runs were measured on all of them."""
    by_metric: dict[tuple[Any, ...], list[Runs]] = {}
    for runs in alone:
        task, _, metric, shots = runs.cells[0]
        by_metric.setdefault((task, metric, shots, frozenset(runs.models)), []).append(runs)
    for some in by_metric.values():
        first = some[0]
        if len(some) > 1 and len(set(first.models)) == len(first.models):
            errors = np.stack([one.errors[0][[one.models.index(name) for name in first.models]] for one in some])
            cells = tuple(one.cells[0] for one in some)
            yield Runs(cells, first.sources, first.models, first.shares, first.log_x, errors, first.unit)


def _row(runs: Runs, x: str, draws: int, generator: np.random.Generator) -> dict[str, Any]:
    require_mixtures(runs.shares)
    at = float(runs.log_x.max())
    laws = [fit_mixture(runs.shares, error, runs.log_x) for error in runs.errors]
    each = zip(runs.errors, laws, strict=True)
    left_out = _relative(runs, [leave_mixture_out(runs.shares, error, runs.log_x, law) for error, law in each])
    without = _relative(runs, [_without_shares(runs, error) for error in runs.errors])
    task, _, metric, shots = runs.cells[0]
    row: dict[str, Any] = {"task": task, "dataset": runs.dataset, "metric": metric, "shots": shots, "x": x}
    row |= {"at": float(np.exp(at)), "n_mixtures": int(groups(runs.shares).max()) + 1, "n_points": len(runs.models)}
    row |= {"loo_error": left_out, "loo_error_without": without, "unit": runs.unit}
    row |= _lowest_measured(runs)
    row["params"] = [_params(law, runs.sources) for law in laws] if len(laws) > 1 else _params(laws[0], runs.sources)
    if not left_out < without:
        return row | {"verdict": NO_EFFECT}
    best = best_mixture(runs.shares, runs.errors, log_compute=runs.log_x, at=at)
    drawn = laws_again(runs.shares, runs.errors, runs.log_x, laws, draws, generator)
    here = [[law.at(at) for law in some] for some in drawn]
    equal = np.full(len(laws), 1 / len(laws))
    ends = np.quantile([lowest(some, equal) for some in here], _ENDS, axis=0)
    low, high = np.minimum(ends[0], best.shares), np.maximum(ends[1], best.shares)
    if len(laws) == 1:  # of which the form of the law leaves no other choice
        low = high = np.full(len(best.shares), np.nan)
    for name, *values in zip(runs.sources, best.shares, low, high, strict=True):
        row |= dict(zip([f"{PREFIX}{name}{end}" for end in ("", "_low", "_high")], map(float, values), strict=True))
    tried = np.unique(runs.shares.round(9), axis=0)
    levels = np.array([[law.loss(np.vstack([best.shares, tried])) for law in some] for some in here])
    mean = levels.mean(1)
    alike = tried[np.quantile(mean[:, 1:] - mean[:, :1], 0.025, axis=0) <= 0]
    others = [_label(runs, mixture) for mixture in alike if np.abs(mixture - best.shares).max() > _SAME]
    row |= dict(zip(("error_low", "error_high"), np.quantile(mean[:, 0], _ENDS).tolist(), strict=True))
    one = (levels[:, :, 0] * np.exp(_scatter(runs, laws, draws, generator))).mean(1)
    row |= dict(zip(("run_low", "run_high"), np.quantile(one, _ENDS).tolist(), strict=True))
    verdict = [] if best.inside else ["beyond the mixtures tried"]
    if len(alike) == len(tried):
        verdict.append("cannot be told apart from any mixture tried")
    elif others:
        named = ", ".join(others) if len(others) <= _LISTED else f"{len(others)} of {len(tried)} mixtures tried"
        verdict.append(f"cannot be told apart from {named}")
    if len(laws) == 1 and len(alike) < len(tried):
        verdict.insert(0, "of one data set always one source")
    said = "; ".join(verdict) or "better than the other mixtures tried"
    return row | {"error": best.loss, "inside": best.inside, "alike": "; ".join(others), "verdict": said}


def _lowest_measured(runs: Runs) -> dict[str, Any]:
    """Of the runs at the largest scale the one with the lowest error."""
    largest = np.flatnonzero(runs.log_x >= runs.log_x.max() - LEAST_WIDTH)
    best = int(largest[runs.errors.mean(0)[largest].argmin()])
    return {"measured": _label(runs, runs.shares[best]), "measured_error": float(runs.errors.mean(0)[best])}


def _relative(runs: Runs, off: Sequence[np.ndarray]) -> float:
    """Mean absolute relative error of the mean over data sets, from predicted over measured errors, minus 1."""
    predicted = (runs.errors * (1 + np.array(off))).mean(0)
    return float(np.abs(predicted / runs.errors.mean(0) - 1).mean())


def _without_shares(runs: Runs, error: np.ndarray) -> np.ndarray:
    """What ``leave_mixture_out`` says of a power law of the scale alone."""
    group, found = groups(runs.shares), np.empty(len(error))
    design = np.stack([np.ones_like(runs.log_x), runs.log_x - runs.log_x.mean()], axis=1)
    for held in (group == number for number in np.unique(group)):
        found[held] = design[held] @ np.linalg.lstsq(design[~held], np.log(error[~held]), rcond=1e-6)[0]
    return np.exp(found) / error - 1


def _scatter(runs: Runs, laws: Sequence[MixtureLaw], draws: int, generator: np.random.Generator) -> np.ndarray:
    """Residuals of ln E ``[draws, tasks]`` of runs drawn at random, as much larger as the fit has made them smaller."""
    fitted = np.array([law.loss(runs.shares, runs.log_x) for law in laws])
    freedom = max(len(runs.models) - laws[0].parameters, 1)
    residual = np.log(runs.errors / fitted) * np.sqrt(len(runs.models) / freedom)
    return residual[:, generator.integers(len(runs.models), size=draws)].T


def _params(law: MixtureLaw, sources: Sequence[str]) -> dict[str, float]:
    exponents = np.broadcast_to(law.exponents, len(sources))
    found = {"floor": law.floor}
    found |= {f"s.{name}": float(slope) for name, slope in zip(sources, law.slopes, strict=True)}
    return found | {f"a.{name}": float(exponent) for name, exponent in zip(sources, exponents, strict=True)}


def _label(runs: Runs, share: np.ndarray) -> str:
    return mixture_label(dict(zip(runs.sources, share, strict=True)))

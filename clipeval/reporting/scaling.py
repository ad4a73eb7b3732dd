"""Scaling plots: checkpoints over compute, with the laws that ``clipeval fit`` finds and their bands."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from clipeval import vocabulary
from clipeval.config import Config
from clipeval.errors import ClipevalError
from clipeval.reporting import words
from clipeval.reporting.boards import whole
from clipeval.reporting.figures import (
    LEFT_OUT_HUE,
    Panel,
    colours,
    figure,
    log_axis,
    plain,
    points,
    translucent,
)
from clipeval.results.columns import COMPUTE, compute, records
from clipeval.results.suites import main_metrics
from clipeval.scaling.looks import FEW
from clipeval.scaling.rows import source_of
from clipeval.scaling.select import TOO_FEW

if TYPE_CHECKING:
    import pandas as pd

    from clipeval.scaling.fitted import Fit

MOST_FITTED = 12
"""Data sets for which laws are fitted; plots of others show their checkpoints only."""
_BOOTSTRAP = 200
_GRID = 48
_HEAD = ("Source", "Checkpoints", "Law", "α", "95 % interval of α", "R²", "Verdict")


@dataclass(frozen=True)
class Law:
    """The fit of one source, and its numbers as in the table of fits."""

    fit: Fit
    numbers: dict[str, Any]

    @property
    def found(self) -> bool:
        """Whether the points are enough for a law."""
        return self.fit.estimate is not None and self.fit.verdict != TOO_FEW


def panels(rows: pd.DataFrame, config: Config) -> list[Panel]:
    """A plot for each task, data set, metric and number of shots that has a checkpoint of known compute."""
    known = rows[(rows["final"] & rows["good"]).to_numpy(bool)]
    known = known.assign(x=compute(known), colour_by=source_of(known, "source_family").fillna("unknown source"))
    known = known[(known["x"].gt(0) & np.isfinite(known["x"])).to_numpy(bool)]
    groups = list(known.groupby(["suite", "task", "dataset"], sort=False))
    groups.sort(
        key=lambda item: (not item[0][0], vocabulary.task_place(item[0][1]), -item[1]["model"].nunique(), item[0][2])
    )
    hues = colours(known["colour_by"].value_counts().index)
    found: list[Panel] = []
    fitted = 0
    for (suite, task, dataset), group in groups:
        for metric in main_metrics(task, dataset, list(group["metric"].dropna().unique()), config):
            part = group[(group["metric"] == metric).to_numpy(bool)]
            laws, reason = _laws(part, task, metric) if fitted < MOST_FITTED else ([], _too_many())
            fitted += 1
            for shots, cell in part.groupby("shots", dropna=False, sort=True):
                own = [law for law in laws if whole(law.fit.points.cell[3]) == whole(shots)]
                title = vocabulary.dataset(dataset, None if math.isinf(whole(shots)) else int(shots))
                menu = (
                    f"{'Suites' if suite else 'Data sets'} · {vocabulary.task(task).title}",
                    f"{title} · {vocabulary.metric(metric).heading}",
                )
                drawn = _over_compute(cell, own, vocabulary.metric(metric).heading, hues)
                notes, lines = tuple(_notes(cell, own, reason)), tuple(_line(law) for law in own if law.found)
                name = f"scaling-{len(found)}"
                found.append(Panel(name, *menu, drawn, notes, _HEAD if lines else (), lines))
    return found


def _too_many() -> str:
    return f"laws are fitted here for the first {MOST_FITTED} data sets only; clipeval fit derives the others"


def _laws(part: pd.DataFrame, task: str, metric: str) -> tuple[list[Law], str]:
    """The laws of one task on one data set, or why there are none. Of repeated values the first is taken."""
    from clipeval.scaling.fit import fit

    first = part.drop_duplicates(["model", "samples_seen", "shots", "seed"])
    scales = first.groupby(["colour_by", "shots"], dropna=False)["x"].transform("nunique")
    first = first[(scales > 1).to_numpy(bool)]
    if first.empty:
        return [], "no source has checkpoints of different compute"
    try:
        result = fit(first, task=task, metric=metric, bootstrap=_BOOTSTRAP)
    except ClipevalError as error:
        return [], str(error).split(". ")[0].rstrip(".")
    numbers = records(result.fits)
    return [Law(fit, row) for fit, row in zip(result.laws, numbers, strict=True)], "too few points"


def _over_compute(cell: pd.DataFrame, laws: Sequence[Law], metric: str, hues: dict[str, str]) -> dict[str, Any]:
    """Error over compute with the laws, both logarithmic, so that a power law is a straight line; without laws the
    value itself."""
    if not any(law.found for law in laws):
        drawn = figure(vocabulary.scale(COMPUTE), f"{metric} (%)", xaxis=log_axis(cell["x"]))
        for source, part in cell.groupby("colour_by", sort=False):
            values = 100 * part["value"].to_numpy(float)
            drawn["data"].append(_checkpoints(part, part["x"], values, plain(source), hues[str(source)]))
        return drawn
    errors = 100 * np.concatenate([law.fit.points.error for law in laws])
    drawn = figure(
        vocabulary.scale(COMPUTE), f"{metric} error (%)", xaxis=log_axis(cell["x"]), yaxis=log_axis(errors, "%")
    )
    for law in laws:
        colour = hues.get(law.fit.points.source, LEFT_OUT_HUE)
        if law.found:
            _draw_law(drawn, law.fit, colour, _with_bands(laws))
        own, errors = law.fit.points, 100 * law.fit.points.error
        drawn["data"].append(_checkpoints(own.table, own.x, errors, plain(own.source), colour))
    rest = _left_out(cell, laws)
    if len(rest):
        values = 100 * (1 - rest["value"].to_numpy(float))
        drawn["data"].append(
            _checkpoints(rest, rest["x"], values, "not fitted", LEFT_OUT_HUE) | {"visible": "legendonly"}
        )
    return drawn


def _with_bands(laws: Sequence[Law]) -> bool:
    """Whether there is room for bands."""
    return sum(law.found for law in laws) <= FEW


def _draw_law(drawn: dict[str, Any], fit: Fit, colour: str, with_band: bool) -> None:
    name = plain(fit.points.source)
    grid = np.geomspace(fit.points.x.min() / 1.3, fit.points.x.max() * 1.8, _GRID)
    low, high = (100 * end for end in fit.band(grid))
    look = {"type": "scatter", "mode": "lines", "hoverinfo": "skip", "legendgroup": name, "showlegend": False}
    x = _short(grid)
    if with_band and fit.extrapolates and np.isfinite(low).all() and np.isfinite(high).all():
        drawn["data"].append({**look, "x": x, "y": _short(np.maximum(high, 1e-3)), "line": {"width": 0}})
        band = {"fill": "tonexty", "fillcolor": translucent(colour, 0.14), "line": {"width": 0}}
        drawn["data"].append({**look, "x": x, "y": _short(np.maximum(low, 1e-3)), **band})
    line = {"color": colour, "width": 2, "dash": "solid" if fit.extrapolates else "dot"}
    drawn["data"].append({**look, "x": x, "y": _short(100 * fit.error(grid)), "line": line})


def _short(values: np.ndarray) -> list[float]:
    """Numbers with as many digits as a picture shows."""
    return [float(f"{value:.5g}") for value in values]


def _checkpoints(part: pd.DataFrame, x: Any, percent: np.ndarray, name: str, colour: str) -> dict[str, Any]:
    marker = {"color": colour, "size": 9, "opacity": 0.9}
    look = {"mode": "markers", "name": name, "legendgroup": name, "marker": marker}
    return points([float(v) for v in x], percent.tolist(), "%{x:.4~g} GMACs<br>%{y:.2f} %", part["row"], **look)


def _left_out(cell: pd.DataFrame, laws: Sequence[Law]) -> pd.DataFrame:
    """The checkpoints in no law, one row each; an error of 0 has no place on a logarithmic axis."""
    models = {model for law in laws for model in law.fit.points.table["model"]}
    rest = cell[~cell["model"].isin(models).to_numpy(bool)].drop_duplicates("model")
    return rest[(rest["value"] < 1).to_numpy(bool)]


def _notes(cell: pd.DataFrame, laws: Sequence[Law], reason: str) -> list[str]:
    if not any(law.found for law in laws):
        return [f"No law is drawn: {reason}."]
    bands = " with 95 % bands" if _with_bands(laws) else ""
    notes = [f"Lines: fitted power laws E = β·C^α{bands}; dotted where no scaling was detected."]
    if not all(law.found for law in laws):
        notes.append("Sources without a line have too few points for a law.")
    left, repeats = len(_left_out(cell, laws)), len(cell) - cell["model"].nunique()
    if left:
        notes.append(f"{words.count(left, 'checkpoint')} outside the fits, as “not fitted” in the legend.")
    if repeats:
        notes.append(f"{words.count(repeats, 'repeated value')} (draws: averaged; other studies: the first counts).")
    return notes


def _line(law: Law) -> tuple[str, ...]:
    row = law.numbers
    interval = f"{row['alpha_low']:.5f} to {row['alpha_high']:.5f}" if row["alpha_low"] is not None else "–"
    return (
        str(row["source"]),
        str(row["n_models"]),
        f"E = {row['beta']:.5g}·C^{row['alpha']:.5f}",
        f"{row['alpha']:.5f}",
        interval,
        "–" if row["r2"] is None else f"{row['r2']:.4f}",
        str(row["verdict"]),
    )

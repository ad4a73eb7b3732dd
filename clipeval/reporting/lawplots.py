"""Checkpoints over compute with their laws, as Plotly draws them, in the style of the figures of ``fit -o``."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from clipeval import vocabulary
from clipeval.reporting import lawwords
from clipeval.reporting.figures import LEFT_OUT_HUE, figure, log_axis, plain, translucent
from clipeval.reporting.laws import Group, Law
from clipeval.results.columns import COMPUTE, archs
from clipeval.scaling.output.style import MARKERS, Looks, samples_seen, upstream
from clipeval.scaling.points import Checkpoints

if TYPE_CHECKING:
    pass

_GRID = 24
_MOST_WITH_BARS = 150
"""Points up to which a plot has room for their intervals."""
PIXELS = 1.8
"""Diameter of a marker in pixels per root of its area in points²."""

_CODES = {
    **{"circle": 0, "square": 1, "diamond": 2, "cross": 3, "x": 4, "triangle-up": 5, "triangle-down": 6},
    **{"triangle-left": 7, "triangle-right": 8, "pentagon": 13, "hexagon": 14, "octagon": 16, "star": 17},
    "diamond-tall": 25,
}
_HOLLOW = 100
"""Plotly's numbers of markers, which keep a page of many points small, and what makes them hollow."""


@dataclass(frozen=True)
class View:
    """What one plot shows: checkpoints by source, those ``left_out`` of all laws, the laws, and how they look.

    ``chance`` is the error of guessing in percent, NaN where it is not known."""

    points: Sequence[Checkpoints]
    left_out: Checkpoints | None
    group: Group
    looks: Looks
    metric: str
    chance: float


def over_compute(view: View) -> dict[str, Any]:
    """Error over compute with the laws, both logarithmic, so that a power law is a straight line; without laws the
    value itself."""
    found = view.group.found
    loss = any(points.loss for points in view.points)
    metric = vocabulary.metric(view.metric)
    if not found:
        x = np.concatenate([points.x for points in view.points])
        drawn = figure(
            vocabulary.scale(COMPUTE), metric.heading if loss else f"{metric.heading} (%)", xaxis=log_axis(x)
        )
        drawn["data"] += [_checkpoints(points, view, _value, points.source) for points in view.points]
        return drawn
    x = np.concatenate([points.x for points in view.points])
    limits = _limits(view, loss)
    axis = log_axis(limits, "" if loss else "%", margin=0.0)
    drawn = figure(
        vocabulary.scale(COMPUTE),
        metric.heading if loss else metric.error,
        xaxis=log_axis(x),
        yaxis=axis | {"range": [math.log10(end) for end in limits]},
    )
    grid = np.geomspace(x.min() / 1.3, x.max() * 2.2, _GRID)
    if limits[0] <= view.chance <= limits[1]:
        drawn["data"].append(_chance(grid, view.chance))
    for law in found:
        drawn["data"] += _law(law, grid, limits[1], view)
    drawn["data"] += _crossover(view, grid, limits)
    fitted = {law.source for law in found}
    for points in view.points:
        drawn["data"].append(_checkpoints(points, view, _error, "" if points.source in fitted else points.source))
    if view.left_out is not None:
        drawn["data"].append(_left_out(view.left_out, view))
    return drawn


def _limits(view: View, loss: bool) -> tuple[float, float]:
    """What the axis of errors shows: no error is above 100 %."""
    errors = np.concatenate([points.unit * points.error for points in view.points])
    span = math.log10(errors.max() / errors.min())
    margin = 10 ** (0.08 * span + 0.02)
    low, high = float(errors.min()) / margin, float(errors.max()) * margin
    if loss:
        return low, high
    if high < view.chance < 1.15 * high:
        high = view.chance * 1.03
    return low, min(high, 100.0)


def _law(law: Law, grid: np.ndarray, ceiling: float, view: View) -> Iterator[dict[str, Any]]:
    """The band, the law within its points, and dashes beyond them."""
    fit, source = law.fit, law.source
    colour, unit = view.looks.lines[source], fit.points.unit
    own = np.unique(np.concatenate([grid, [fit.points.x.min(), fit.points.x.max()]]))
    error, inside = unit * fit.error(own), fit.decades_beyond(own) == 0
    possible = np.isfinite(error) if fit.points.loss else error <= 100.0
    look = {"type": "scatter", "mode": "lines", "legendgroup": plain(source), "showlegend": False}
    percent = "" if fit.points.loss else " %"
    if view.looks.few and fit.extrapolates:
        low, high = (unit * end for end in fit.band(own))
        if np.isfinite(low).all() and np.isfinite(high).all():
            top = np.maximum(high, 1e-3) if fit.points.loss else np.clip(high, 1e-3, 100.0)
            edge = {**look, "hoverinfo": "skip", "line": {"width": 0}, "x": _short(own)}
            yield edge | {"y": _short(top)}
            fill = {"fill": "tonexty", "fillcolor": translucent(colour, 0.13)}
            yield edge | {"y": _short(np.minimum(np.maximum(low, 1e-3), top)), **fill}
    said = {"hovertemplate": f"{_about(law)}<br>%{{y:.4~g}}{percent} at %{{x:.3~s}} GMACs<extra></extra>"}
    name = plain(source) + (f": {_formula(law)}" if view.looks.few or not fit.extrapolates else "")
    line = {"color": colour, "width": 2, "dash": "solid" if fit.extrapolates else "dot"}
    here = inside & possible
    yield {
        **look,
        **said,
        "x": _short(own[here]),
        "y": _short(error[here]),
        "line": line,
        "name": name,
        "showlegend": True,
    }
    if not fit.extrapolates:
        return
    for side in (own <= fit.points.x.min(), own >= fit.points.x.max()):
        part = side & possible
        if part.sum() > 1:
            dashes = {"color": colour, "width": 1.4, "dash": "5px,4px"}
            yield {**look, **said, "x": _short(own[part]), "y": _short(error[part]), "line": dashes}


def _formula(law: Law) -> str:
    return lawwords.equation(law.fit) if law.fit.extrapolates else lawwords.NO_LAW[law.fit.verdict]


def _about(law: Law) -> str:
    parts = [f"<b>{plain(law.source)}</b>", _formula(law)]
    parts += [f"α {lawwords.exponent(law)}"] if law.fit.extrapolates else []
    return "<br>".join(parts)


def _chance(grid: np.ndarray, error: float) -> dict[str, Any]:
    line = {"color": LEFT_OUT_HUE, "width": 1.2, "dash": "2px,3px"}
    said = f"guessing: {error:.4g} % error<extra></extra>"
    ends = {"x": _short(grid[[0, -1]]), "y": [round(error, 4)] * 2}
    return {
        "type": "scatter",
        "mode": "lines",
        "name": "guessing",
        "legendrank": 2000,
        "line": line,
        "hovertemplate": said,
        **ends,
    }


def _crossover(view: View, grid: np.ndarray, limits: tuple[float, float]) -> Iterator[dict[str, Any]]:
    """Where the laws of two sources cross."""
    met = [pair for pair in view.group.pairs if grid[0] <= pair.crossover <= grid[-1]]
    if len(view.group.pairs) != 1 or not met:
        return
    [pair] = met
    name = f"crossover {lawwords.large(pair.crossover)} GMACs"
    drawn_on = {law.fit.frontier for law in view.group.found}
    name += f" (frontier {pair.frontier})" if pair.frontier and drawn_on != {pair.frontier} else ""
    ends = f"95 %: {lawwords.large(pair.crossover_low)} to {lawwords.large(pair.crossover_high)}"
    line = {"color": LEFT_OUT_HUE, "width": 1.2, "dash": "dot"}
    shape = {"x": _short(np.array([pair.crossover] * 2)), "y": _short(np.array(limits))}
    yield {"type": "scatter", "mode": "lines", "name": name, "legendrank": 1999, "line": line, **shape} | {
        "hovertemplate": f"{name}<br>{ends}<extra></extra>"
    }


def _error(points: Checkpoints) -> np.ndarray:
    return points.unit * points.error


def _value(points: Checkpoints) -> np.ndarray:
    return points.unit * (points.error if points.loss else 1 - points.error)


def _checkpoints(
    points: Checkpoints, view: View, shown: Callable[[Checkpoints], np.ndarray], in_legend: str
) -> dict[str, Any]:
    """The checkpoints of a source: its colour in the tint of the upstream data, shapes by architecture, sizes by
    samples seen. ``in_legend`` is empty where its law stands there."""
    looks, hue = view.looks, view.looks.lines[points.source]
    tints = [looks.colours[points.source, source] for source in upstream(points)]
    hollow = _HOLLOW if points.source in looks.hollow else 0
    shapes = [_CODES[MARKERS[looks.markers[looks.kinds[arch]]]] + hollow for arch in archs(points.table)]
    sizes = [round(PIXELS * math.sqrt(area), 1) for area in looks.sizes(samples_seen(points))]
    marker = {"color": _one(tints), "symbol": _one(shapes), "size": _one(sizes), "line": {"color": hue, "width": 0.8}}
    name = plain(in_legend or points.source)
    look = {"name": name, "legendgroup": name, "showlegend": bool(in_legend), "marker": marker}
    values = shown(points)
    return _scatter(points, values, view, **look, **_bars(points, values, view, hue))


def _left_out(points: Checkpoints, view: View) -> dict[str, Any]:
    marker = {"color": LEFT_OUT_HUE, "size": 8, "symbol": "circle"}
    return _scatter(points, _error(points), view, name="not fitted", visible="legendonly", marker=marker)


def _scatter(points: Checkpoints, values: np.ndarray, view: View, **look: Any) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers",
        "x": _short(points.x),
        "y": [float(f"{value:.6g}") for value in values],
        "customdata": [int(row) for row in points.table["row"]],
        "meta": {"metric": vocabulary.metric(view.metric).heading, "percent": not points.loss},
        "hovertemplate": "%{text}<extra></extra>",
        **look,
    }


def _bars(points: Checkpoints, values: np.ndarray, view: View, hue: str) -> dict[str, Any]:
    """The intervals of the values, where the table has them and there is room. A mean over seeds has none."""
    table = points.table
    if sum(len(each.x) for each in view.points) > _MOST_WITH_BARS or not {"ci_low", "ci_high"} <= set(table):
        return {}
    value, low, high = (table[name].to_numpy(float, na_value=math.nan) for name in ("value", "ci_low", "ci_high"))
    as_errors = np.allclose(values, points.unit * points.error)
    flipped = as_errors and not points.loss
    own = np.isclose(points.error, value if points.loss else 1 - value)
    up, down = (value - low, high - value) if flipped else (high - value, value - low)
    known = own & np.isfinite(up + down)
    if not known.any():
        return {}
    arrays = [_short(points.unit * np.where(known, np.maximum(side, 0), 0)) for side in (up, down)]
    look = {"type": "data", "symmetric": False, "thickness": 1, "width": 0, "color": translucent(hue, 0.55)}
    return {"error_y": look | {"array": arrays[0], "arrayminus": arrays[1]}}


def _one(values: list[Any]) -> Any:
    """One value where all are equal."""
    return values[0] if len(set(values)) == 1 else values


def _short(values: np.ndarray) -> list[float]:
    """Numbers with as many digits as a picture shows."""
    return [float(f"{value:.5g}") for value in values]

"""Figures for a paper: the checkpoints, the fitted laws with their bands, and where two laws cross."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from clipeval import vocabulary
from clipeval.files import write_atomically
from clipeval.results.columns import COMPUTE, archs
from clipeval.scaling.fitted import Fit
from clipeval.scaling.output.figures import COMBINED, Figures, Picture
from clipeval.scaling.output.style import STYLE, Looks, as_text, legend, looks_of, samples_seen, upstream
from clipeval.scaling.points import Cell, Checkpoints
from clipeval.scaling.validation import NO_SCALING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from clipeval.scaling.questions.compare import Comparison
    from clipeval.scaling.questions.forecast import Forecast

_REMARK: dict[str, Any] = {"fontsize": 6.5, "color": "0.25", "va": "top"}
_LEGEND: dict[str, Any] = {"framealpha": 0.85, "edgecolor": "none", "handlelength": 1.6, "borderaxespad": 0.2}
_MOST_PANELS = 6
_TICKS = ((1, 2, 5), (1, 2, 3, 5, 7), (1, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 9), tuple(np.arange(1, 10, 0.5)))


@dataclass(frozen=True)
class Drawn:
    """What figures are made of; ``x`` names the scales."""

    fits: Sequence[Fit]
    comparisons: Sequence[Comparison]
    forecasts: Sequence[Forecast]
    x: str
    looks: Looks


def figures(fits: Sequence[Fit], comparisons: Sequence[Comparison], forecasts: Sequence[Forecast], x: str) -> Figures:
    """A figure for every data set and metric, and one with all of them where there are 2 to 6. By file name.

    Laws of one scale are drawn over it; of laws of several scales the measured error is drawn over the fitted one.
    Forecasts have their two intervals, the wide one of a later model and the narrow one of the law.
    """
    if not fits:  # of mixtures there is no figure
        return Figures()
    cells = list(dict.fromkeys(fit.points.cell for fit in fits))
    all_of_it = Drawn(fits, comparisons, forecasts, x, looks_of([fit.points for fit in fits]))
    drawn = {_file_name(cell): _figure([cell], all_of_it) for cell in cells}
    if 2 <= len(cells) <= _MOST_PANELS:
        drawn[COMBINED] = _figure(cells, all_of_it)
    return Figures(drawn)


def save(drawn: Figures, folder: Path) -> list[Path]:
    """Every figure as PNG and PDF; the paths written. Raises StoreError."""
    metadata: dict[str, dict[str, Any]] = {"png": {}, "pdf": {"CreationDate": None}}
    paths = []
    for name, figure in drawn.items():
        for kind, facts in metadata.items():
            path = folder / f"{name}.{kind}"
            write_atomically(path, partial(figure.savefig, format=kind, dpi=200, bbox_inches="tight", metadata=facts))
            paths.append(path)
    return paths


def _file_name(cell: Cell) -> str:
    _, dataset, metric, shots = cell
    return "-".join(str(part).replace("/", "_") for part in (dataset, metric, shots and f"{shots}shot") if part)


def _figure(cells: Sequence[Cell], drawn: Drawn) -> Picture:
    import matplotlib as mpl

    columns = min(2, len(cells))
    rows = -(-len(cells) // columns)
    with mpl.rc_context(STYLE):
        figure = Picture(figsize=(3.5 * columns + 1.5, 2.9 * rows), layout="constrained")
        axes = np.atleast_1d(figure.subplots(rows, columns)).ravel()
        for axis, cell in zip(axes, cells, strict=False):
            of_cell = [fit for fit in drawn.fits if fit.points.cell == cell]
            of_cell.sort(key=lambda fit: -len(fit.points.error))  # few points on top of many
            _title(axis, cell, of_cell[0].points.loss)
            if of_cell[0].law.inputs == 1:
                _laws(axis, of_cell, drawn)
            else:
                _parity(axis, of_cell, drawn.x, drawn.looks)
        for axis in axes[len(cells) :]:
            axis.set_axis_off()
        figure.legend(handles=legend(drawn.looks), loc="outside right upper", frameon=False, labelspacing=0.45)
    return figure


def _title(axis: Axes, cell: Cell, loss: bool) -> None:
    _, dataset, metric, shots = cell
    title = ", ".join(part for part in (vocabulary.dataset(dataset, shots), vocabulary.metric(metric).way) if part)
    axis.set_title(as_text(title), loc="left", fontweight="bold")
    axis.set_ylabel(as_text(vocabulary.metric(metric).heading if loss else vocabulary.metric(metric).error))
    axis.set_xscale("log")
    axis.set_yscale("log")


def _laws(axis: Axes, fits: Sequence[Fit], drawn: Drawn) -> None:
    """Error over one scale, with the laws, forecasts and, of two sources, where they cross."""
    x, looks, cell = drawn.x, drawn.looks, fits[0].points.cell
    pairs = [pair for pair in drawn.comparisons if pair.cell == cell]
    made = [forecast for forecast in drawn.forecasts if forecast.cell == cell and np.isfinite(forecast.predicted)]
    ahead = made if x == COMPUTE else []
    low, high = (float(end([end(fit.points.x) for fit in fits])) for end in (np.min, np.max))
    grid = np.geomspace(low / 1.35, max([high * 2.2, *(1.5 * each.gmacs_total for each in ahead)]), 200)
    for fit in fits:
        _law(axis, fit, grid, looks, "C" if x == COMPUTE else "x")
        _checkpoints(axis, fit, fit.points.x, looks)
    lowest = [_forecast(axis, each, fits[0].points, looks) for each in ahead]
    axis.set_xlim(grid[0], grid[-1])
    limits = (min([_range(fits)[0], *(error / 1.1 for error in lowest if error > 0)]), _range(fits)[1])
    axis.set_ylim(*limits)
    if len(pairs) == 1:
        # the laws that cross may be others than those drawn
        others = pairs[0].frontier and any(fit.frontier != pairs[0].frontier for fit in fits)
        _crossover(axis, pairs[0], grid, f" by frontier {pairs[0].frontier}" if others else "")
    _percent_ticks(axis.yaxis, limits)
    _decade_ticks(axis)
    axis.set_xlabel(vocabulary.scale(x))
    if looks.few:
        axis.legend(loc="lower left", **_LEGEND)


def _forecast(axis: Axes, forecast: Forecast, points: Checkpoints, looks: Looks) -> float:
    """The forecast by the law with its interval as a thick line, that of one later model as a thin one; its low end."""
    colour, at = looks.lines[forecast.source], forecast.gmacs_total
    ends = [(forecast.later.low, forecast.later.high), forecast.law]
    lowest = shown = points.unit * points.value(forecast.predicted)
    for width, (low, high) in zip((0.8, 2.4), ends, strict=True):
        if low == low:
            errors = sorted((points.unit * points.value(low), points.unit * points.value(high)))
            axis.plot([at, at], errors, color=colour, lw=width, zorder=3, solid_capstyle="butt")
            lowest = min(lowest, errors[0])
    axis.plot([at], [shown], marker="D", ms=4, mfc="white", mec=colour, zorder=5)
    return float(lowest)


def _parity(axis: Axes, fits: Sequence[Fit], x: str, looks: Looks) -> None:
    """Measured over fitted error of laws of several scales; of a perfect law all points lie on the diagonal."""
    low, high = _range(fits)
    axis.plot([low, high], [low, high], color="0.5", lw=0.8, zorder=1)
    for fit in fits:
        label = f"{as_text(fit.points.source)}: too few points for a law"
        if fit.estimate is not None:
            _checkpoints(axis, fit, fit.points.unit * fit.error(fit.points.x), looks)
            label = f"{as_text(fit.points.source)}: {fit.law.name}, $R^2$ = {fit.estimate.r2:.4f}"
        axis.plot([], [], "o", ms=4, color=looks.lines[fit.points.source], label=label)
    axis.set_xlim(low, high)
    axis.set_ylim(low, high)
    for side in (axis.xaxis, axis.yaxis):
        _percent_ticks(side, (low, high))
    _behind(axis)
    what = "Loss" if fits[0].points.loss else "Error"
    percent = "" if fits[0].points.loss else " (%)"
    axis.set_xlabel(f"{what} by the law of {', '.join(name.strip() for name in x.split(','))}{percent}")
    if looks.few:
        axis.legend(loc="upper left", **_LEGEND)


def _range(fits: Sequence[Fit]) -> tuple[float, float]:
    """The percents that an axis of errors shows, or the losses."""
    errors = np.concatenate([fit.points.unit * fit.points.error for fit in fits])
    return float(errors.min() / 1.3), float(min(errors.max() * 1.25, np.inf if fits[0].points.loss else 110.0))


def _law(axis: Axes, fit: Fit, grid: np.ndarray, looks: Looks, symbol: str) -> None:
    colour = looks.lines[fit.points.source]
    unit = fit.points.unit
    error, inside = unit * fit.error(grid), fit.decades_beyond(grid) == 0
    style = "-" if fit.extrapolates else ":"
    axis.plot(grid[inside], error[inside], style, color=colour, lw=1.4, zorder=3, label=_law_label(fit, symbol))
    if not fit.extrapolates:
        return
    for side in (grid <= grid[inside][0], grid >= grid[inside][-1]):
        axis.plot(grid[side], error[side], color=colour, lw=1.0, ls=(0, (4, 2)), zorder=3)
    if looks.few:
        low, high = fit.band(grid)
        axis.fill_between(grid, unit * low, unit * high, color=colour, alpha=0.12, lw=0, zorder=1)


def _law_label(fit: Fit, symbol: str) -> str:
    source = as_text(fit.points.source)
    if not fit.extrapolates or fit.estimate is None:
        why = "no scaling detected" if fit.verdict == NO_SCALING else "too few points for a law"
        return f"{source}: {why}"
    power = f"{fit.estimate['beta']:.5g}\\,{symbol}^{{{fit.estimate['alpha']:.5f}}}"
    if fit.law.name == "power":
        return f"{source}: $E = {power}$"
    if fit.law.name == "power_floor":
        return f"{source}: $E = {power} + {fit.estimate['e_inf']:.5f}$"
    return f"{source}: {fit.law.name}"


def _checkpoints(axis: Axes, fit: Fit, x: np.ndarray, looks: Looks) -> None:
    sizes, sources = looks.sizes(samples_seen(fit.points)), upstream(fit.points)
    kinds = np.array([looks.kinds[arch] for arch in archs(fit.points.table)], dtype=object)
    for source, kind in dict.fromkeys(zip(sources, kinds, strict=True)):
        here = (sources == source) & (kinds == kind)
        colour = looks.colours[fit.points.source, source]
        hollow = fit.points.source in looks.hollow
        axis.scatter(
            x[here],
            fit.points.unit * fit.points.error[here],
            s=sizes[here],
            marker=looks.markers[kind],
            color=["white" if hollow else colour],
            edgecolors=colour if hollow else "white",
            linewidths=0.8 if hollow else 0.4,
            zorder=4,
        )


def _crossover(axis: Axes, pair: Comparison, grid: np.ndarray, how: str) -> None:
    if np.isnan(pair.crossover):
        if pair.note.startswith("crossover"):
            axis.text(0.99, 0.97, "crossover undetermined", transform=axis.transAxes, ha="right", **_REMARK)
        return
    if not grid[0] <= pair.crossover <= grid[-1]:
        return
    axis.axvline(pair.crossover, color="0.35", lw=0.8, ls=":", zorder=2)
    ends = f"{_power_of_ten(pair.crossover_low, 1)}, {_power_of_ten(pair.crossover_high, 1)}"
    axis.annotate(
        f"crossover {_power_of_ten(pair.crossover, 3)}\n[{ends}]{how}",
        (pair.crossover, 0.96),
        xycoords=("data", "axes fraction"),
        xytext=(3, 0),
        textcoords="offset points",
        **_REMARK,
    )


def _power_of_ten(value: float, digits: int) -> str:
    """``$2.54{\\times}10^{11}$``"""
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    return f"${mantissa}{{\\times}}10^{{{int(exponent)}}}$"


def _percent_ticks(side: Any, limits: tuple[float, float]) -> None:
    """Round percents, as many as it takes to have four where possible."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    low, high = limits
    ticks: list[float] = []
    for steps in _TICKS:
        if len(ticks) < 4:
            ticks = [step * 10.0**power for power in range(-4, 3) for step in steps]
            ticks = [tick for tick in ticks if low <= tick <= high]
    side.set_major_locator(FixedLocator(ticks))
    side.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    side.set_minor_locator(NullLocator())


def _decade_ticks(axis: Axes) -> None:
    """Powers of ten on the x axis where it spans more than one."""
    from matplotlib.ticker import LogFormatterSciNotation, LogLocator, NullFormatter

    left, right = axis.get_xlim()
    if right / left > 10:
        axis.xaxis.set_major_locator(LogLocator(base=10, numticks=12))
        axis.xaxis.set_major_formatter(LogFormatterSciNotation())
        axis.xaxis.set_minor_formatter(NullFormatter())
    _behind(axis)


def _behind(axis: Axes) -> None:
    axis.grid(True, which="major", color="0.92", lw=0.5)
    axis.set_axisbelow(True)

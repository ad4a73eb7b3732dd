"""Figures for a paper: the checkpoints, the fitted laws with their bands, and where two laws cross."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from clipeval.results.files import write_atomically
from clipeval.scaling import names
from clipeval.scaling.columns import archs, numbers
from clipeval.scaling.fitted import Fit
from clipeval.tables import human

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from clipeval.scaling.compare import Comparison

_HUES = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F", "#000000")
"""Okabe and Ito's palette, which readers with colour blindness can tell apart."""
_MARKERS = "vos*PD^Xhp<>8d"
_STYLE: dict[Any, Any] = {
    "font.size": 8,
    "axes.labelsize": 8,
    "axes.titlesize": 9,
    "legend.fontsize": 7,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
}
_REMARK: dict[str, Any] = {"fontsize": 6.5, "color": "0.25"}


@dataclass(frozen=True)
class _Looks:
    """The same colour, marker and size for the same thing in every panel of a figure."""

    colours: dict[tuple[str, str], Any]
    """By (fitted source, upstream data set)."""
    lines: dict[str, Any]
    markers: dict[str, str]
    samples: list[float]

    def sizes(self, samples: np.ndarray) -> np.ndarray:
        """Marker areas in points², from 14 for the fewest samples seen to 70 for the most."""
        low, high = np.log(self.samples[0]), np.log(self.samples[-1])
        place = (np.log(samples) - low) / (high - low) if high > low else np.full(len(samples), 0.5)
        return 14 + 56 * np.nan_to_num(np.clip(place, 0, 1), nan=0.5) ** 1.5


def figures(fits: Sequence[Fit], comparisons: Sequence[Comparison], x: str) -> dict[str, Figure]:
    """A figure for every data set and metric, and one with all of them where there are 2 to 6. By file name."""
    cells = list(dict.fromkeys(fit.points.cell for fit in fits))
    looks = _looks(fits)
    drawn = {_file_name(cell): _figure([cell], fits, comparisons, x, looks) for cell in cells}
    if 2 <= len(cells) <= 6:
        drawn["scaling"] = _figure(cells, fits, comparisons, x, looks)
    return drawn


def save(drawn: dict[str, Figure], folder: Path) -> list[Path]:
    """Every figure as PNG and PDF; the paths written. Raises StoreError."""
    paths = []
    for name, figure in drawn.items():
        for kind in ("png", "pdf"):
            path = folder / f"{name}.{kind}"
            metadata = {"CreationDate": None} if kind == "pdf" else {}
            write_atomically(
                path,
                partial(figure.savefig, format=kind, dpi=200, bbox_inches="tight", metadata=metadata),
            )
            paths.append(path)
    return paths


def _file_name(cell: tuple[str, str, str, int | None]) -> str:
    _, dataset, metric, shots = cell
    return "-".join(str(part).replace("/", "_") for part in (dataset, metric, shots and f"{shots}shot") if part)


def _figure(
    cells: Sequence[Any], fits: Sequence[Fit], comparisons: Sequence[Comparison], x: str, looks: _Looks
) -> Figure:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    columns = min(2, len(cells))
    rows = -(-len(cells) // columns)
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(3.5 * columns + 1.5, 2.9 * rows), layout="constrained")
        axes = np.atleast_1d(figure.subplots(rows, columns)).ravel()
        for axis, cell in zip(axes, cells, strict=False):
            _panel(axis, cell, [fit for fit in fits if fit.points.cell == cell], comparisons, x, looks)
        for axis in axes[len(cells) :]:
            axis.set_axis_off()
        figure.legend(handles=_legend(looks), loc="outside right upper", frameon=False, labelspacing=0.45)
    return figure


def _panel(
    axis: Axes, cell: Any, fits: Sequence[Fit], comparisons: Sequence[Comparison], x: str, looks: _Looks
) -> None:
    _, dataset, metric, shots = cell
    axis.set_xscale("log")
    axis.set_yscale("log")
    low = min(fit.points.x.min() for fit in fits)
    high = max(fit.points.x.max() for fit in fits)
    grid = np.geomspace(low / 1.35, high * 2.2, 200)
    for fit in sorted(fits, key=lambda fit: -len(fit.points.x)):  # few points on top of many
        _law(axis, fit, grid, looks.lines[fit.points.source])
        _checkpoints(axis, fit, looks)
    for comparison in comparisons:
        if comparison.cell == cell:
            _crossover(axis, comparison, grid)
    shown = np.concatenate([100 * fit.points.error for fit in fits])
    axis.set_xlim(grid[0], grid[-1])
    axis.set_ylim(shown.min() / 1.3, min(shown.max() * 1.25, 110))
    _percent_ticks(axis)
    title = ", ".join(part for part in (names.dataset(dataset, shots), names.direction(metric)) if part)
    axis.set_title(title, loc="left", fontweight="bold")
    axis.set_xlabel(names.scale(x))
    axis.set_ylabel(names.error(metric))
    axis.legend(loc="lower left", frameon=True, framealpha=0.85, edgecolor="none", handlelength=1.6, borderaxespad=0.2)


def _law(axis: Axes, fit: Fit, grid: np.ndarray, colour: str) -> None:
    if fit.estimate is None:
        axis.plot([], [], color=colour, label=f"{fit.points.source}: too few points")
        return
    error = 100 * fit.error(grid)
    inside = fit.decades_beyond(grid) == 0
    style = "-" if fit.extrapolates else ":"
    axis.plot(grid[inside], error[inside], style, color=colour, lw=1.4, zorder=3, label=_law_label(fit))
    if not fit.extrapolates:
        return
    for side in (grid <= grid[inside][0], grid >= grid[inside][-1]):
        axis.plot(grid[side], error[side], color=colour, lw=1.0, ls=(0, (4, 2)), zorder=3)
    band_low, band_high = fit.band(grid)
    axis.fill_between(grid, 100 * band_low, 100 * band_high, color=colour, alpha=0.12, lw=0, zorder=1)


def _law_label(fit: Fit) -> str:
    assert fit.estimate is not None
    if not fit.extrapolates:
        return f"{fit.points.source}: no scaling detected"
    if fit.law.names == ("beta", "alpha") or set(fit.law.names) == {"alpha", "beta"}:
        return f"{fit.points.source}: $E = {fit.estimate['beta']:.5g}\\,C^{{{fit.estimate['alpha']:.5f}}}$"
    return f"{fit.points.source}: {fit.law.name}"


def _checkpoints(axis: Axes, fit: Fit, looks: _Looks) -> None:
    points = fit.points
    samples = _samples(points.table)
    for source in points.table["source"].dropna().unique() if "source" in points.table else [points.source]:
        for arch, marker in looks.markers.items():
            here = _of(points.table, "source", source) & (archs(points.table) == arch)
            if here.any():
                axis.scatter(
                    points.x[here],
                    100 * points.error[here],
                    s=looks.sizes(samples[here]),
                    marker=marker,
                    color=[looks.colours[points.source, source]],
                    edgecolors="white",
                    linewidths=0.4,
                    zorder=4,
                )


def _crossover(axis: Axes, comparison: Comparison, grid: np.ndarray) -> None:
    at = comparison.crossover
    if at != at:
        if comparison.note.startswith("crossover"):
            axis.text(0.99, 0.97, "crossover undetermined", transform=axis.transAxes, ha="right", va="top", **_REMARK)
        return
    if not grid[0] <= at <= grid[-1]:
        return
    axis.axvline(at, color="0.35", lw=0.8, ls=":", zorder=2)
    axis.annotate(
        f"crossover {_power(at, 3)}\n[{_power(comparison.crossover_low, 1)}, {_power(comparison.crossover_high, 1)}]",
        (at, 0.96),
        xycoords=("data", "axes fraction"),
        xytext=(3, 0),
        textcoords="offset points",
        va="top",
        **_REMARK,
    )


def _power(value: float, digits: int) -> str:
    """``$2.54 \\times 10^{11}$``"""
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    return f"${mantissa}{{\\times}}10^{{{int(exponent)}}}$"


def _percent_ticks(axis: Axes) -> None:
    """Whole percents at 1, 2, 3, 5, 7 times a power of ten, more where the axis is short; powers of ten for x."""
    from matplotlib.ticker import (
        FixedLocator,
        FuncFormatter,
        LogFormatterSciNotation,
        LogLocator,
        NullFormatter,
        NullLocator,
    )

    low, high = axis.get_ylim()
    ladders = ((1, 2, 5), (1, 2, 3, 5, 7), (1, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 9))
    for steps in ladders:
        ticks = [step * 10.0**power for power in range(-4, 3) for step in steps if low <= step * 10.0**power <= high]
        if len(ticks) >= 4:
            break
    axis.yaxis.set_major_locator(FixedLocator(ticks))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.yaxis.set_minor_locator(NullLocator())
    left, right = axis.get_xlim()
    if right / left > 10:
        axis.xaxis.set_major_locator(LogLocator(base=10, numticks=12))
        axis.xaxis.set_major_formatter(LogFormatterSciNotation())
        axis.xaxis.set_minor_formatter(NullFormatter())
    axis.grid(True, which="major", color="0.92", lw=0.5)
    axis.set_axisbelow(True)


def _looks(fits: Sequence[Fit]) -> _Looks:
    from matplotlib.colors import to_rgb

    lines = {source: _HUES[i % len(_HUES)] for i, source in enumerate(_unique(fit.points.source for fit in fits))}
    colours: dict[tuple[str, str], Any] = {}
    for family, hue in lines.items():
        tables = [fit.points.table for fit in fits if fit.points.source == family]
        sizes: dict[str, float] = {}
        for table in tables:
            unique = numbers(table, "unique_samples") if "unique_samples" in table else np.full(len(table), np.nan)
            sources = table["source"].fillna(family) if "source" in table else [family] * len(table)
            sizes |= dict(zip(sources, np.nan_to_num(unique), strict=True))
        for i, source in enumerate(sorted(sizes, key=lambda name: sizes[name])):
            strength = 1.0 if len(sizes) == 1 else 0.35 + 0.65 * i / (len(sizes) - 1)
            colours[family, source] = tuple(1 - strength * (1 - part) for part in to_rgb(hue))
    everything = [fit.points.table for fit in fits]
    gmacs: dict[str, float] = {}
    for table in everything:
        size = numbers(table, "gmacs") if "gmacs" in table else np.zeros(len(table))
        gmacs |= dict(zip(archs(table), np.nan_to_num(size), strict=True))
    markers = {arch: _MARKERS[i % len(_MARKERS)] for i, arch in enumerate(sorted(gmacs, key=lambda a: gmacs[a]))}
    samples = np.concatenate([_samples(table) for table in everything])
    return _Looks(colours, lines, markers, sorted(samples[samples > 0].tolist()) or [1.0])


def _legend(looks: _Looks) -> list[Any]:
    from matplotlib.lines import Line2D

    def entry(label: str, **look: Any) -> Line2D:
        looks: dict[str, Any] = {"ls": "", "marker": "o", "ms": 5, "mec": "white", "mew": 0.4} | look
        return Line2D([], [], **looks, label=label)

    def heading(text: str) -> Line2D:
        return Line2D([], [], ls="", label=f"$\\bf{{{text}}}$".replace(" ", "\\ "))

    handles = [heading("Upstream data")]
    handles += [entry(source, color=colour) for (_, source), colour in looks.colours.items()]
    markers = {arch: marker for arch, marker in looks.markers.items() if arch}
    if len(markers) > 1:
        handles.append(heading("Architecture"))
        handles += [entry(arch, marker=marker, color="0.35") for arch, marker in markers.items()]
    steps = _unique(float(f"{value:.1e}") for value in looks.samples)
    if len(steps) > 1:
        shown = np.array([steps[0], steps[len(steps) // 2], steps[-1]])
        handles.append(heading("Samples seen"))
        handles += [
            entry(human(value), ms=float(np.sqrt(size)), color="0.35")
            for value, size in zip(_unique(shown.tolist()), looks.sizes(shown), strict=False)
        ]
    return handles


def _samples(table: Any) -> np.ndarray:
    return numbers(table, "samples_seen") if "samples_seen" in table else np.full(len(table), np.nan)


def _of(table: Any, column: str, value: str) -> np.ndarray:
    return table[column].isin([value]).to_numpy(bool) if column in table else np.full(len(table), True)


def _unique(values: Iterable[Any]) -> list[Any]:
    return list(dict.fromkeys(values))

"""Colours, markers and sizes: the same for the same thing in every panel of a figure, and the legend that says so."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from clipeval.results.columns import archs, numbers
from clipeval.scaling.points import Checkpoints
from clipeval.tables import human

if TYPE_CHECKING:
    from matplotlib.lines import Line2D

STYLE: dict[Any, Any] = {
    "font.size": 8,
    "axes.labelsize": 8,
    "axes.titlesize": 9,
    "legend.fontsize": 7,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "pdf.fonttype": 42,  # text stays text that an editor can change
}
FEW = 4
"""Up to so many sources a figure has a shade for every upstream data set, bands, and the laws in the panels."""
HUES = (
    *("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#9467BD"),
    *("#8C564B", "#A8A800", "#D81B60", "#00A6A6", "#5C6BC0", "#7CB342", "#B0853B"),
)
"""Okabe and Ito's palette, which readers with colour blindness can tell apart, without black and yellow, then others:
all can be seen on white and on black. Further sources have hollow markers in the same colours."""
MARKERS = {
    **{"v": "triangle-down", "o": "circle", "s": "square", "*": "star", "P": "cross", "D": "diamond"},
    **{"^": "triangle-up", "X": "x", "h": "hexagon", "p": "pentagon", "<": "triangle-left", ">": "triangle-right"},
    **{"8": "octagon", "d": "diamond-tall"},
}
"""Matplotlib's markers in the order of architectures, and what Plotly calls them."""


@dataclass(frozen=True)
class Palette:
    """Colours of all pictures of one table: ``lines`` is by fitted source, ``shades`` by (fitted source, upstream data
    set) from few unique samples to many; markers of the sources ``hollow`` are not filled."""

    lines: dict[str, str]
    shades: dict[tuple[str, str], str]
    hollow: frozenset[str]


@dataclass(frozen=True)
class Looks:
    """``lines`` is by fitted source, ``colours`` by (fitted source, upstream data set) in shades from few unique
    samples to many, ``markers`` by ``kinds`` of architectures in ascending order of GMACs; ``samples`` are all numbers
    of samples seen. With many sources an upstream data set has the colour of its fitted source."""

    colours: dict[tuple[str, str], str]
    lines: dict[str, str]
    kinds: dict[str, str]
    markers: dict[str, str]
    samples: list[float]
    hollow: frozenset[str] = frozenset()

    @property
    def few(self) -> bool:
        """Whether there is room for shades, bands and formulas."""
        return len(self.lines) <= FEW

    def sizes(self, samples: np.ndarray) -> np.ndarray:
        """Marker areas in points² ``[n]``, from 14 for the fewest samples seen to 70 for the most."""
        low, high = np.log(self.samples[0]), np.log(self.samples[-1])
        place = (np.log(samples) - low) / (high - low) if high > low else np.full(len(samples), 0.5)
        return 14 + 56 * np.nan_to_num(np.clip(place, 0, 1), nan=0.5) ** 1.5

    def shown_samples(self) -> list[float]:
        """The fewest samples seen, a number between and the most, for a legend; none where all are equal."""
        steps = _unique(float(f"{value:.1e}") for value in self.samples)
        return _unique([steps[0], steps[len(steps) // 2], steps[-1]]) if len(steps) > 1 else []


def palette_of(everything: Sequence[Checkpoints]) -> Palette:
    """The colours of all sources, in the order in which they first appear."""
    sources = _unique(points.source for points in everything)
    lines = {source: HUES[i % len(HUES)] for i, source in enumerate(sources)}
    return Palette(lines, _shades(everything, lines), frozenset(sources[len(HUES) :]))


def looks_of(everything: Sequence[Checkpoints], palette: Palette | None = None) -> Looks:
    """How the checkpoints and laws of one picture, or of several that share a legend, are drawn."""
    palette = palette or palette_of(everything)
    lines = {source: palette.lines[source] for source in _unique(points.source for points in everything)}
    pairs = _unique((points.source, source) for points in everything for source in upstream(points))
    shades = palette.shades if len(lines) <= FEW else {pair: lines[pair[0]] for pair in pairs}
    colours = {pair: shade for pair, shade in shades.items() if pair in set(pairs)}
    gmacs: dict[str, float] = {}
    for points in everything:
        gmacs |= dict(zip(archs(points.table), _column(points, "gmacs", 0.0), strict=True))
    kinds = {arch: arch for arch in sorted(gmacs, key=lambda arch: gmacs[arch])}
    if len(kinds) > len(MARKERS):
        kinds = {arch: re.split("[^A-Za-z]", arch)[0] for arch in kinds}
    markers = {kind: [*MARKERS][i % len(MARKERS)] for i, kind in enumerate(_unique(kinds.values()))}
    samples = np.concatenate([samples_seen(points) for points in everything])
    seen = sorted(samples[samples > 0].tolist()) or [1.0]
    return Looks(colours, lines, kinds, markers, seen, palette.hollow & set(lines))


def upstream(points: Checkpoints) -> np.ndarray:
    """The upstream data set of each checkpoint ``[n]``; the fitted source where the table does not say."""
    if "source" not in points.table:
        return np.full(len(points.table), points.source, dtype=object)
    return points.table["source"].astype(object).fillna(points.source).to_numpy(object)


def samples_seen(points: Checkpoints) -> np.ndarray:
    """Samples seen by each checkpoint ``[n]``, NaN where the table does not say."""
    return _column(points, "samples_seen", np.nan)


def legend(looks: Looks) -> list[Line2D]:
    """Entries for upstream data, and for architectures and samples seen where there are several."""
    handles = [_heading("Upstream data")]
    if looks.few:
        handles += [_entry(source, color=colour) for (_, source), colour in looks.colours.items()]
    else:
        handles += [_entry(source, color=colour, ls="-") for source, colour in looks.lines.items()]
    markers = {kind: marker for kind, marker in looks.markers.items() if kind}
    if len(markers) > 1:
        handles.append(_heading("Architecture"))
        handles += [_entry(kind, marker=marker, color="0.35") for kind, marker in markers.items()]
    shown = np.array(looks.shown_samples())
    if len(shown):
        handles.append(_heading("Samples seen"))
        handles += [
            _entry(human(value), ms=float(np.sqrt(size)), color="0.35")
            for value, size in zip(shown.tolist(), looks.sizes(shown), strict=True)
        ]
    return handles


def _shades(everything: Sequence[Checkpoints], lines: dict[str, str]) -> dict[tuple[str, str], str]:
    sizes: dict[str, dict[str, float]] = {source: {} for source in lines}
    for points in everything:
        sizes[points.source] |= dict(zip(upstream(points), _column(points, "unique_samples", 0.0), strict=True))
    shades: dict[tuple[str, str], str] = {}
    for family, known in sizes.items():
        for i, source in enumerate(sorted(known, key=lambda name: known[name])):
            shades[family, source] = _tint(
                lines[family], 1.0 if len(known) == 1 else 0.35 + 0.65 * i / (len(known) - 1)
            )
    return shades


def _tint(hue: str, strength: float) -> str:
    """A colour mixed with white: ``strength`` 1 is the colour itself."""
    parts = (int(hue[i : i + 2], 16) for i in (1, 3, 5))
    return "#" + "".join(f"{round(255 - strength * (255 - part)):02X}" for part in parts)


def _entry(label: str, **look: Any) -> Line2D:
    from matplotlib.lines import Line2D

    defaults: dict[str, Any] = {"ls": "", "marker": "o", "ms": 5, "mec": "white", "mew": 0.4}
    return Line2D([], [], **defaults | look, label=as_text(label))


def as_text(name: str) -> str:
    """A name in which Matplotlib finds no formula."""
    return name.replace("$", r"\$")


def _heading(text: str) -> Line2D:
    from matplotlib.lines import Line2D

    return Line2D([], [], ls="", label=f"$\\bf{{{text}}}$".replace(" ", "\\ "))


def _column(points: Checkpoints, name: str, missing: float) -> np.ndarray:
    if name not in points.table:
        return np.full(len(points.table), missing)
    return np.nan_to_num(numbers(points.table, name), nan=missing)


def _unique(values: Iterable[Any]) -> list[Any]:
    return list(dict.fromkeys(values))

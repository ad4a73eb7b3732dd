"""Colours, markers and sizes: the same for the same thing in every panel of a figure, and the legend that says so."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from clipeval.results.columns import archs, numbers
from clipeval.scaling.fitted import Fit
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
_HUES = (
    *("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F", "#000000"),
    *("#8C564B", "#9467BD", "#BCBD22", "#17BECF", "#AEC7E8", "#98DF8A", "#C5B0D5", "#C49C94"),
)
"""Okabe and Ito's palette, which readers with colour blindness can tell apart, then others."""
_MARKERS = "vos*PD^Xhp<>8d"


@dataclass(frozen=True)
class Looks:
    """``lines`` is by fitted source, ``colours`` by (fitted source, upstream data set) in shades from few unique
    samples to many, ``markers`` by ``kinds`` of architectures in ascending order of GMACs; ``samples`` are all numbers
    of samples seen. With many sources an upstream data set has the colour of its fitted source."""

    colours: dict[tuple[str, str], Any]
    lines: dict[str, str]
    kinds: dict[str, str]
    markers: dict[str, str]
    samples: list[float]

    @property
    def few(self) -> bool:
        """Whether there is room for shades, bands and formulas."""
        return len(self.lines) <= FEW

    def sizes(self, samples: np.ndarray) -> np.ndarray:
        """Marker areas in points² ``[n]``, from 14 for the fewest samples seen to 70 for the most."""
        low, high = np.log(self.samples[0]), np.log(self.samples[-1])
        place = (np.log(samples) - low) / (high - low) if high > low else np.full(len(samples), 0.5)
        return 14 + 56 * np.nan_to_num(np.clip(place, 0, 1), nan=0.5) ** 1.5


def looks_of(fits: Sequence[Fit]) -> Looks:
    """How the checkpoints and laws of a call are drawn."""
    everything = [fit.points for fit in fits]
    lines = {source: _HUES[i % len(_HUES)] for i, source in enumerate(_unique(points.source for points in everything))}
    gmacs: dict[str, float] = {}
    for points in everything:
        gmacs |= dict(zip(archs(points.table), _column(points, "gmacs", 0.0), strict=True))
    kinds = {arch: arch for arch in sorted(gmacs, key=lambda arch: gmacs[arch])}
    if len(kinds) > len(_MARKERS):
        kinds = {arch: re.split("[^A-Za-z]", arch)[0] for arch in kinds}
    markers = {kind: _MARKERS[i % len(_MARKERS)] for i, kind in enumerate(_unique(kinds.values()))}
    samples = np.concatenate([samples_seen(points) for points in everything])
    return Looks(_shades(everything, lines), lines, kinds, markers, sorted(samples[samples > 0].tolist()) or [1.0])


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
    steps = _unique(float(f"{value:.1e}") for value in looks.samples)
    if len(steps) > 1:
        shown = np.array(_unique([steps[0], steps[len(steps) // 2], steps[-1]]))
        handles.append(_heading("Samples seen"))
        handles += [
            _entry(human(value), ms=float(np.sqrt(size)), color="0.35")
            for value, size in zip(shown.tolist(), looks.sizes(shown), strict=True)
        ]
    return handles


def _shades(everything: Sequence[Checkpoints], lines: dict[str, str]) -> dict[tuple[str, str], Any]:
    from matplotlib.colors import to_rgb

    shades: dict[tuple[str, str], Any] = {}
    for family, hue in lines.items():
        sizes: dict[str, float] = {}
        for points in everything:
            if points.source == family:
                sizes |= dict(zip(upstream(points), _column(points, "unique_samples", 0.0), strict=True))
        for i, source in enumerate(sorted(sizes, key=lambda name: sizes[name])):
            strength = 1.0 if len(sizes) == 1 or len(lines) > FEW else 0.35 + 0.65 * i / (len(sizes) - 1)
            shades[family, source] = tuple(1 - strength * (1 - part) for part in to_rgb(hue))
    return shades


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

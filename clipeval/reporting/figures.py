"""What all Plotly figures of the page share: looks, hover text, names that are safe to show."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from clipeval.reporting import words

HUES = (
    *("#3b82c4", "#e07b39", "#2a9d6f", "#b565b0", "#c9a227", "#d1495b", "#4aa9b8", "#8a7f72"),
    *("#7c6bd6", "#6a994e", "#a5673f", "#d88fa9"),
)
"""Colours of sources and checkpoints: legible on white and on black."""
LEFT_OUT_HUE = "#8b8f98"
FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif'
"""That of the page: Plotly's labels have one of their own."""
MOST_VISIBLE = 12
_MOST_DECADES = 3
_LEGEND_WIDTH = 42
_STEPS = ((1,), (1, 2, 5), (1, 2, 3, 5, 7), tuple(range(1, 10)), tuple(i / 2 for i in range(2, 20)))


@dataclass(frozen=True)
class Panel:
    """A figure with its text. ``group`` and ``title`` place it in the menu of its section; ``table`` holds the same in
    words: a head and lines."""

    id: str
    group: str
    title: str
    figure: dict[str, Any]
    notes: tuple[str, ...] = ()
    head: tuple[str, ...] = ()
    table: tuple[tuple[str, ...], ...] = field(default=())


def plain(name: object) -> str:
    """A name for Plotly, which reads some HTML: it is shown as it is written."""
    return html.escape(str(name), quote=False)


def legend_name(name: object) -> str:
    """A name for a legend: of a long one its end, which tells checkpoints of one repository apart."""
    full = str(name)
    return plain(full if len(full) <= _LEGEND_WIDTH else f"…{full[1 - _LEGEND_WIDTH :]}")


def colours(names: Iterable[str]) -> dict[str, str]:
    """A colour for each name, in order."""
    return {name: HUES[i % len(HUES)] for i, name in enumerate(dict.fromkeys(names))}


def translucent(colour: str, alpha: float) -> str:
    """``#3b82c4`` as ``rgba(59,130,196,0.15)``"""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha})"


def figure(x: str, y: str, **layout: Any) -> dict[str, Any]:
    """A figure without traces, in Plotly's JSON form; the page adds its own colours. ``layout`` may set its axes."""
    axis = {"automargin": True, "zeroline": False}
    return {
        "data": [],
        "layout": {
            "showlegend": True,
            "margin": {"l": 56, "r": 12, "t": 12, "b": 48},
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "hovermode": "closest",
            "hoverlabel": {"font": {"family": FONT}},
            "legend": {"orientation": "h", "yanchor": "bottom", "y": 1.01, "xanchor": "left", "x": 0},
            "xaxis": {"title": {"text": x}, **axis, **layout.get("xaxis", {})},
            "yaxis": {"title": {"text": y}, **axis, **layout.get("yaxis", {})},
        },
    }


def log_axis(values: Iterable[float], suffix: str = "", margin: float = 0.3) -> dict[str, Any]:
    """A logarithmic axis for these values and ``margin`` decades beyond: powers of ten where it spans many, else round
    numbers in words."""
    found = [float(value) for value in values if value > 0 and math.isfinite(value)]
    if not found:
        return {"type": "log"}
    low, high = math.log10(min(found)) - margin, math.log10(max(found)) + margin
    if high - low > _MOST_DECADES:
        return {"type": "log", "dtick": 1, "exponentformat": "power"}
    exponents = range(math.floor(low), math.ceil(high) + 1)
    enough = (steps for steps in _STEPS if sum(low < e + math.log10(s) < high for e in exponents for s in steps) > 3)
    steps = next(enough, _STEPS[-1])
    ticks = [float(f"{step}e{exponent}") for exponent in exponents for step in steps]
    return {"type": "log", "tickvals": ticks, "ticktext": [f"{words.size(tick)}{suffix}" for tick in ticks]}


def points(x: Sequence[Any], y: Sequence[float], hover: str, rows: Iterable[int], **look: Any) -> dict[str, Any]:
    """A scatter trace whose points lead to their rows of the table, from which the page takes their names; ``hover``
    is Plotly's template for the rest."""
    return {
        "type": "scatter",
        "x": list(x),
        "y": list(y),
        "customdata": [int(row) for row in rows],
        "hovertemplate": f"<b>%{{text}}</b><br>{hover}<extra></extra>",
        **look,
    }

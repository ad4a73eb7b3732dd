"""Building blocks of tables on the terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from clipeval import console
from clipeval.cached import KINDS, Kept
from clipeval.console import show
from clipeval.errors import few


def table(title: str | None = None) -> Table:
    """An empty table as all commands draw them, for ``console.out``."""
    return Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)


def number(value: Any, digits: int = 4) -> str:
    """A number with so many digits behind the point; a dash when unknown."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    return f"{value:.{digits}f}" if isinstance(value, float) else str(value)


def human(value: Any, unit: str = "") -> str:
    """A large number with a metric suffix: 12.8B, 151M; a dash when unknown."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    for size, suffix in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.4g}{suffix}{unit}"
    return f"{value:.4g}{unit}"


_LIST_COLUMNS = {
    "models": ("model", "source", "samples_seen", "samples_seen_from", "params", "gmacs", "gmacs_total", "image_size"),
    "datasets": ("name", "spec", "split", "n", "tasks", "main_metric", "suites", "unavailable"),
    "suites": ("name", "title", "metric", "members"),
    "tasks": ("name", "short", "title", "main_metric", "metrics", "version"),
    "studies": ("name", "title", "models", "rows", "cite", "licence", "ask"),
}


_MOST_LISTED = 40


def print_list(what: str, rows: Sequence[dict[str, Any]]) -> None:
    """A listing with its most useful columns; ``--json`` has all of them."""
    shown = table()
    for column in _LIST_COLUMNS[what]:
        shown.add_column(column.replace("_", " "), overflow="fold")
    for row in rows:
        shown.add_row(*(_cell(row.get(column)) for column in _LIST_COLUMNS[what]))
    console.out().print(shown)
    show(f"{len(rows)} {what}")


def print_cache(folder: str, found: Sequence[Kept], verb: str) -> None:
    """What of the cache in ``folder`` was ``found``, largest first."""
    shown = table()
    for column in ("kind", "size", "files", "what"):
        shown.add_column(column, justify="right" if column in ("size", "files") else "left")
    for kept in sorted(found, key=lambda kept: -kept.bytes):
        if kept.files:
            shown.add_row(kept.kind, human(float(kept.bytes), "B"), f"{kept.files:,}", KINDS[kept.kind])
    if shown.row_count:
        console.out().print(shown)
    show(f"{human(float(sum(kept.bytes for kept in found)), 'B')} {verb} in {folder}")


def _cell(value: Any) -> str:
    if isinstance(value, list | tuple):
        return few(value, _MOST_LISTED)
    return human(value) if isinstance(value, float) else number(value)

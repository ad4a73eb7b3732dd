"""Building blocks of tables on the terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from clipeval.console import out


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


def add_row(table: Table, *cells: str) -> None:
    """A row of texts in which nothing is markup."""
    table.add_row(*map(Text, cells))


_LIST_COLUMNS = {
    "models": ("model", "source", "samples_seen", "samples_seen_from", "params", "gmacs", "gmacs_total", "image_size"),
    "datasets": ("name", "spec", "split", "n", "tasks", "main_metric", "suites"),
    "suites": ("name", "title", "metric", "members"),
    "tasks": ("name", "short", "title", "main_metric", "version"),
}


def print_list(what: str, rows: Sequence[dict[str, Any]]) -> None:
    """A listing with its most useful columns; ``--json`` has all of them."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in _LIST_COLUMNS[what]:
        table.add_column(column.replace("_", " "), overflow="fold")
    for row in rows:
        add_row(table, *(_cell(row.get(column)) for column in _LIST_COLUMNS[what]))
    console = out()
    console.print(table)
    console.print(f"{len(rows)} {what}")


def _cell(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return human(value) if isinstance(value, float) else number(value)

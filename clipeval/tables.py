"""Tables on the terminal."""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from clipeval import vocabulary

_PIPE_WIDTH = 200


def _console() -> Console:
    return Console(highlight=False, width=None if sys.stdout.isatty() else _PIPE_WIDTH)


def _number(value: Any, digits: int = 4) -> str:
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


def print_results(rows: Sequence[dict[str, Any]], cells: Sequence[Any], out: Path) -> None:
    """What this run's checkpoints reached: a table per task, a line per measurement, percent with 95 % intervals."""
    models = {cell.model.name for cell in cells}
    datasets = {cell.dataset for cell in cells}
    shown = [row for row in rows if row["model"] in models and (row["dataset"] in datasets or row.get("reference"))]
    console = _console()
    for task in dict.fromkeys(row["task"] for row in shown):
        of_task = [row for row in shown if row["task"] == task and row["status"] in ("ok", "limited")]
        if of_task:
            console.print(_task_table(task, of_task))
    troubles: dict[tuple[str, ...], list[str]] = {}
    for row in shown:
        if row["status"] not in ("ok", "limited"):
            what = row["status"], row["dataset"], row["task"], row.get("metric") or "", str(row.get("error"))
            troubles.setdefault(what, []).append(row["model"])
    for (status, dataset, task, metric, error), names in troubles.items():
        who = names[0] if len(names) == 1 else f"{len(names)} checkpoints"
        console.print(f"{status}: {dataset} · {task} · {metric} · {who}: {error}", markup=False, soft_wrap=True)
    console.print(
        f"{len(rows)} rows in {out / 'results.parquet'} and {out / 'results.csv'}", markup=False, soft_wrap=True
    )


def _task_table(task: str, rows: Sequence[dict[str, Any]]) -> Table:
    metrics = list(dict.fromkeys(row["metric"] for row in rows))
    few_shot = any(row.get("shots") is not None for row in rows)
    table = Table(title=f"{task}: % (95 % interval)", title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for column in ("model", "data set"):
        table.add_column(column, overflow="fold")
    for column in (
        "GMACs",
        "samples seen",
        *(["shots"] if few_shot else []),
        "n",
        *(vocabulary.metric(name).title for name in metrics),
    ):
        table.add_column(column, justify="right", no_wrap=True)
    lines: dict[tuple[Any, ...], dict[str, dict[str, Any]]] = {}
    for row in rows:
        key = tuple(row.get(name) for name in ("model", "dataset", "shots", "seed", "limit", "protocol"))
        lines.setdefault(key, {})[row["metric"]] = row
    for (model, dataset, shots, seed, _, protocol), values in lines.items():
        row = next(iter(values.values()))
        if protocol == "cherti2023":
            dataset = f"{dataset} (cherti2023: best of 9 on test)"
        elif protocol not in (None, "default"):
            dataset = f"{dataset} ({protocol})"
        drawn = "full" if shots is None else f"{shots} (seed {seed})"
        n = f"{max(r['n'] for r in values.values())}{' of a limited run' if row['status'] == 'limited' else ''}"
        facts = [human(row.get("gmacs")), human(row.get("samples_seen")), *([drawn] if few_shot else []), n]
        table.add_row(model, dataset, *facts, *(_percent(values.get(metric)) for metric in metrics))
    return table


def _percent(row: dict[str, Any] | None) -> str:
    if row is None:
        return ""
    return f"{100 * row['value']:.1f} ({100 * row['ci_low']:.1f}–{100 * row['ci_high']:.1f})"


def print_plan(cells: Sequence[dict[str, Any]]) -> None:
    """One line per cell, and the totals."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in ("model", "data set", "task", "shots", "state"):
        table.add_column(column, overflow="fold")
    for column in ("images", "seconds"):
        table.add_column(column, justify="right")
    for cell in cells:
        seconds = cell["estimated_seconds"]
        table.add_row(
            cell["model"],
            cell["dataset"],
            cell["task"],
            "" if cell["shots"] is None else f"{cell['shots']} (seed {cell['seed']})",
            cell["state"],
            _number(cell["images"]),
            "unknown" if seconds is None and cell["state"] == "to do" else _number(seconds, 1),
        )
    console = _console()
    console.print(table)
    reasons = Counter((cell["state"], cell["reason"]) for cell in cells if cell["reason"])
    for (state, reason), count in reasons.items():
        console.print(f"{count} {state}: {reason}", markup=False, soft_wrap=True)
    states = Counter(cell["state"] for cell in cells)
    console.print(f"{len(cells)} cells: " + ", ".join(f"{count} {state}" for state, count in states.items()))


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
        table.add_row(*(_cell(row.get(column)) for column in _LIST_COLUMNS[what]))
    console = _console()
    console.print(table)
    console.print(f"{len(rows)} {what}")


def _cell(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return human(value) if isinstance(value, float) else _number(value)

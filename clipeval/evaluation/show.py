"""A run and a plan on the terminal."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from shutil import disk_usage
from typing import Any

from rich.table import Table

from clipeval import console, vocabulary
from clipeval.console import show
from clipeval.errors import few
from clipeval.paths import cache_dir
from clipeval.results.schema import WITH_VALUE
from clipeval.results.suites import is_suite
from clipeval.tables import human, number, table


def print_results(rows: Sequence[dict[str, Any]], cells: Sequence[Any], out: Path, failed: Sequence[Any] = ()) -> None:
    """What this run's checkpoints reached: a table per task, a line per measurement, percent with 95 % intervals.

    Of the cells that ``failed`` in it ``failures`` tells.
    """
    told = {(cell.model.name, cell.dataset, cell.task.name) for cell in failed}
    models = {cell.model.name for cell in cells}
    datasets = {cell.dataset for cell in cells}
    shown = [row for row in rows if row["model"] in models and (row["dataset"] in datasets or is_suite(row))]
    for task in dict.fromkeys(row["task"] for row in shown):
        of_task = [row for row in shown if row["task"] == task and row["status"] in WITH_VALUE]
        for alike in _sharing_metrics(of_task):
            console.out().print(_task_table(task, alike))
    troubles: dict[tuple[str, ...], list[str]] = {}
    for row in shown:
        known = row["status"] == "failed" and (row["model"], row["dataset"], row["task"]) in told
        if row["status"] not in WITH_VALUE and not known:
            what = row["status"], row["dataset"], row["task"], row.get("metric") or "", str(row.get("error"))
            troubles.setdefault(what, []).append(row["model"])
    for (status, dataset, task, metric, error), names in troubles.items():
        who = names[0] if len(names) == 1 else f"{len(names)} checkpoints"
        show(f"{status}: {dataset} · {task} · {metric} · {who}: {error}")
    show(f"{len(rows)} rows in {out / 'results.parquet'} and {out / 'results.csv'}")


def failures(failed: Sequence[tuple[Any, Exception]]) -> Iterator[str]:
    """Why cells could not be measured, each reason once."""
    labels: dict[str, list[str]] = {}
    for cell, error in failed:
        labels.setdefault(str(error), []).append(cell.label)
    for reason, found in labels.items():
        yield f"not measured: {few(dict.fromkeys(found), 3)}: {reason}"


def _sharing_metrics(rows: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """The rows in groups that have no metric in common, in order of their first rows: a table each."""
    groups: list[tuple[set[str], set[str]]] = []
    for dataset in dict.fromkeys(row["dataset"] for row in rows):
        metrics = {row["metric"] for row in rows if row["dataset"] == dataset}
        sharing = [group for group in groups if group[0] & metrics]
        groups = [group for group in groups if group not in sharing]
        groups.append((metrics.union(*(of for of, _ in sharing)), {dataset}.union(*(names for _, names in sharing))))
    found = [[row for row in rows if row["dataset"] in names] for _, names in groups]
    return sorted(found, key=lambda alike: rows.index(alike[0]))


def _task_table(task: str, rows: Sequence[dict[str, Any]]) -> Table:
    metrics = list(dict.fromkeys(row["metric"] for row in rows))
    few_shot = any(row.get("shots") is not None for row in rows)
    shown = table(f"{task}: % (95 % interval)")
    for column in ("model", "data set"):
        shown.add_column(column, overflow="fold")
    for column in (
        "GMACs",
        "samples seen",
        *(["shots"] if few_shot else []),
        "n",
        *(vocabulary.metric(name).title for name in metrics),
    ):
        shown.add_column(column, justify="right", no_wrap=True)
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
        samples = max((r["n"] for r in values.values() if r.get("n") is not None), default=None)
        n = number(samples) + (" of a limited run" if row["status"] == "limited" else "")
        facts = [human(row.get("gmacs")), human(row.get("samples_seen")), *([drawn] if few_shot else []), n]
        shown.add_row(model, dataset, *facts, *(_percent(values.get(metric)) for metric in metrics))
    return shown


def _percent(row: dict[str, Any] | None) -> str:
    if row is None:
        return ""
    low, high = row.get("ci_low"), row.get("ci_high")
    if low is None or high is None or math.isnan(low) or math.isnan(high):
        return f"{100 * row['value']:.1f}"
    return f"{100 * row['value']:.1f} ({100 * low:.1f}–{100 * high:.1f})"


def print_plan(cells: Sequence[dict[str, Any]]) -> None:
    """One line per cell, and the totals."""
    shown = table()
    for column in ("model", "data set", "task", "shots", "state"):
        shown.add_column(column, overflow="fold")
    for column in ("images", "seconds"):
        shown.add_column(column, justify="right")
    for cell in cells:
        seconds = cell["estimated_seconds"]
        shown.add_row(
            cell["model"],
            cell["dataset"],
            cell["task"],
            "" if cell["shots"] is None else f"{cell['shots']} (seed {cell['seed']})",
            _state(cell),
            number(cell["images"]),
            "unknown" if seconds is None and cell["state"] == "to do" else number(seconds, 1),
        )
    console.out().print(shown)
    reasons = Counter((_state(cell), cell["reason"]) for cell in cells if cell["reason"])
    for (state, reason), count in reasons.items():
        show(f"{count} {state}: {reason}")
    states = Counter(map(_state, cells))
    show(f"{len(cells)} cells: " + ", ".join(f"{count} {state}" for state, count in states.items()))
    for line in _bytes(cells):
        show(line)


def _state(cell: dict[str, Any]) -> str:
    return "to download" if cell["to_download"] else str(cell["state"])


def _bytes(cells: Sequence[dict[str, Any]]) -> Iterator[str]:
    """What is to come over the network, each checkpoint once, and what the run keeps of pixels."""
    coming = {cell["model"]: cell["weights_bytes"] for cell in cells if cell["to_download"]}
    sizes = [size for size in coming.values() if size != 0]
    if sizes:
        known = [size for size in sizes if size is not None]
        unknown = f"; of {len(sizes) - len(known)} more it is not known" if len(known) < len(sizes) else ""
        yield f"to download: about {sum(known) / 1e9:.1f} GB of weights for {len(known)} checkpoints{unknown}; and data"
    ahead = [cell for cell in cells if cell["state"] == "to do" or cell["to_download"]]
    of_checkpoint: dict[tuple[str, ...], int] = {}
    for cell in ahead:  # a task that trains reads one split more
        key = cell["dataset"], cell["split"], cell["model"]
        of_checkpoint[key] = max(of_checkpoint.get(key, 0), cell["pixels_bytes"] or 0)
    pixels = {(dataset, split, size) for (dataset, split, _), size in of_checkpoint.items() if size}
    if pixels:
        free = disk_usage(next(path for path in (cache_dir(), *cache_dir().parents) if path.exists())).free
        most = sum(size for *_, size in pixels) / 1e9
        yield f"disk: up to {most:.1f} GB of pixels in {cache_dir()}, where {free / 1e9:.1f} GB are free"

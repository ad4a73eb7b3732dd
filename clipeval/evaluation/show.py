"""A run and a plan on the terminal."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from shutil import disk_usage
from typing import Any

from clipeval import vocabulary
from clipeval.console import show
from clipeval.drawing import Column
from clipeval.errors import few
from clipeval.evaluation.reasons import MOST_APART, together, whose
from clipeval.names import SEPARATOR, Names, display_names
from clipeval.paths import cache_dir
from clipeval.results.schema import WITH_VALUE
from clipeval.results.suites import is_suite
from clipeval.tables import Sheet, human, number

_MOST_LISTED = 6


def print_results(rows: Sequence[dict[str, Any]], cells: Sequence[Any], out: Path, failed: Sequence[Any] = ()) -> None:
    """What this run's checkpoints reached: a table per task, a line per measurement, percent with 95 % intervals.

    Of the cells that ``failed`` in it ``failures`` tells.
    """
    told = {(cell.model.name, cell.dataset, cell.task.name) for cell in failed}
    models = {cell.model.name for cell in cells}
    datasets = {cell.dataset for cell in cells}
    shown = [row for row in rows if row["model"] in models and (row["dataset"] in datasets or is_suite(row))]
    names, main = display_names(shown), {cell.main_metric for cell in cells}
    for task in sorted({row["task"] for row in shown}, key=vocabulary.task_place):
        of_task = [row for row in shown if row["task"] == task and row["status"] in WITH_VALUE]
        for alike in _sharing_metrics(of_task):
            _sheet(task, alike, names, main).print()
            show("")
    troubles: dict[tuple[str, ...], list[str]] = {}
    for row in shown:
        known = row["status"] == "failed" and (row["model"], row["dataset"], row["task"]) in told
        if row["status"] not in WITH_VALUE and not known:
            what = row["status"], row["dataset"], row["task"], row.get("metric") or "", str(row.get("error"))
            troubles.setdefault(what, []).append(names[row["model"]])
    for (status, dataset, task, metric, error), who in troubles.items():
        of = [dataset, vocabulary.task(task).words, *([vocabulary.metric(metric).title] if metric else [])]
        of.append(who[0] if len(who) == 1 else f"{len(who)} checkpoints")
        show(f"{status}: {SEPARATOR.join(of)}: {_short(error)}")
    show(f"{len(rows)} rows in {out / 'results.parquet'} and {out / 'results.csv'}")


def failures(failed: Sequence[tuple[Any, Exception]]) -> Iterator[str]:
    """Why cells could not be measured, each reason once; what is not here was told when the run began."""
    told = (("missing, as said above" if cell.state == "missing" else str(error), cell) for cell, error in failed)
    for reason, cells in together(told):
        labels = list(dict.fromkeys(cell.label for cell in cells))
        many = whose((cell.model.name for cell in cells), (cell.dataset for cell in cells))
        yield f"not measured: {', '.join(labels) if len(labels) <= MOST_APART else many}: {reason}"


def _short(error: str) -> str:
    """Of a long list, such as that of a suite's members, the beginning: the table has all."""
    words = error.split(", ")
    return error if len(words) <= _MOST_LISTED else few(words, _MOST_LISTED)


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


def _sheet(task: str, rows: Sequence[dict[str, Any]], names: Names, main: Collection[str]) -> Sheet:
    metrics = sorted({row["metric"] for row in rows}, key=vocabulary.metric_place)
    folder = f", checkpoints in {names.folder}" if names.folder and _has_files(rows, names) else ""
    sheet = Sheet(
        f"{vocabulary.task(task).title} in % (95 % interval){folder}",
        Column("model", "name"),
        Column("data set", "name"),
        Column("shots", "name" if _few_shot(rows) else "word", leaves=1),
        Column("GMACs", "figure", leaves=5),
        Column("samples seen", "figure", leaves=6),
        Column("n", "figure", leaves=7),
        *(Column(vocabulary.metric(name).title, "figure", _leaves(task, name, metrics, main)) for name in metrics),
    )
    lines: dict[tuple[Any, ...], dict[str, dict[str, Any]]] = {}
    for row in rows:
        key = tuple(row.get(name) for name in ("model", "dataset", "shots", "seed", "limit", "protocol"))
        lines.setdefault(key, {})[row["metric"]] = row
    for (model, dataset, shots, seed, _, protocol), values in lines.items():
        row = next(iter(values.values()))
        drawn = "" if not _few_shot(rows) else "full" if shots is None else f"{shots} (seed {seed})"
        samples = max((r["n"] for r in values.values() if r.get("n") is not None), default=None)
        n = number(samples)
        facts = human(row.get("gmacs")), human(row.get("samples_seen")), n
        shown = (_percent(values.get(metric)) for metric in metrics)
        limited = " (limited)" if row["status"] == "limited" else ""
        sheet.add(names[model], f"{_dataset(dataset, protocol)}{limited}", drawn, *facts, *shown)
    return sheet


def _few_shot(rows: Sequence[dict[str, Any]]) -> bool:
    return any(row.get("shots") is not None for row in rows)


def _has_files(rows: Sequence[dict[str, Any]], names: Names) -> bool:
    return any(row["model"].startswith(names.folder) for row in rows)


def _leaves(task: str, metric: str, metrics: Sequence[str], main: Collection[str]) -> int:
    """How soon a metric leaves where there is no room: never one that stands for the task or for a data set."""
    standing = {*main, *vocabulary.task(task).main}.intersection(metrics) or metrics[:1]
    if metric in standing:
        return 0
    return {"acc5": 2, "mean_per_class_recall": 4}.get(metric, 2 if metric.endswith("@1") else 3)


def _dataset(name: str, protocol: str | None) -> str:
    if protocol == "cherti2023":
        return f"{name} (cherti2023: best of 9 on test)"
    return name if protocol in (None, "default") else f"{name} ({protocol})"


def _percent(row: dict[str, Any] | None) -> str:
    if row is None:
        return ""
    low, high = row.get("ci_low"), row.get("ci_high")
    if low is None or high is None or math.isnan(low) or math.isnan(high):
        return f"{100 * row['value']:.1f}"
    return f"{100 * row['value']:.1f} ({100 * low:.1f}–{100 * high:.1f})"


def print_plan(cells: Sequence[dict[str, Any]]) -> None:
    """One line per cell, and the totals."""
    names = display_names(cells)
    shown = Sheet(
        f"checkpoints in {names.folder}" if names.folder else "",
        *(Column(head, "name") for head in ("model", "data set", "task")),
        *(Column("shots", leaves=1), Column("state"), Column("images", "figure"), Column("seconds", "figure")),
    )
    for cell in cells:
        seconds = cell["estimated_seconds"]
        shown.add(
            names[cell["model"]],
            cell["dataset"],
            vocabulary.task(cell["task"]).words,
            "" if cell["shots"] is None else f"{cell['shots']} (seed {cell['seed']})",
            _state(cell),
            number(cell["images"]),
            "unknown" if seconds is None and cell["state"] == "to do" else number(seconds, 1),
        )
    shown.print()
    why = together((cell["reason"], cell) for cell in cells if cell["reason"] and not cell["to_download"])
    for reason, of in why:
        show(f"{len(of)} {_state(of[0])}: {reason}")
    states = Counter(map(_state, cells))
    show(f"{len(cells)} cells: " + ", ".join(f"{count} {state}" for state, count in states.items()))
    for line in (*_compute(cells), *_bytes(cells)):
        show(line)


def _state(cell: dict[str, Any]) -> str:
    return "to download" if cell["to_download"] else str(cell["state"])


def _compute(cells: Sequence[dict[str, Any]]) -> Iterator[str]:
    """How many images are to be encoded, each once per checkpoint, and what that takes where it is known of all."""
    ahead = {
        (cell["model"], cell["dataset"], cell["split"]): (cell["images"], cell["gmacs_image"])
        for cell in cells
        if cell["state"] == "to do" or cell["to_download"]
    }
    known = [(images, gmacs) for images, gmacs in ahead.values() if images is not None]
    if not known:
        return
    more = f", and those of {len(ahead) - len(known)} more" if len(known) < len(ahead) else ""
    macs = sum(images * gmacs for images, gmacs in known) / 1e3
    cost = "" if math.isnan(macs) else f", about {macs:,.0f} TMACs" if macs >= 1 else ", less than a TMAC"
    yield f"to encode: {sum(images for images, _ in known):,} images{more}{cost}"


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

"""Heat maps: checkpoint by data set, one per task."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from clipeval import vocabulary
from clipeval.config import Config
from clipeval.reporting.boards import VALUE, Value, value_of, whole
from clipeval.reporting.rows import text
from clipeval.results.columns import records
from clipeval.results.suites import main_metrics

if TYPE_CHECKING:
    import pandas as pd

_USED = ("model", "arch", "source", "dataset", "task", "shots", *VALUE)


@dataclass(frozen=True)
class Cell:
    """``place`` in [0, 1] is where the value lies between the lowest and the highest of its column."""

    value: Value
    place: float


@dataclass(frozen=True)
class Column:
    """A data set and metric; ``missing`` counts the checkpoints without a value."""

    title: str
    metric: str
    missing: int


@dataclass(frozen=True)
class Matrix:
    """``cells`` has one list per model and one entry per column, None where the table has no row."""

    id: str
    title: str
    columns: tuple[Column, ...]
    models: tuple[tuple[str, str, str], ...]
    """Name, architecture, source."""
    cells: tuple[tuple[Cell | None, ...], ...]
    repeated: int
    """Measurements of the same thing beyond the first, which are only on the leaderboards."""


def matrices(rows: pd.DataFrame, config: Config) -> list[Matrix]:
    """One heat map per task, of the main metrics on its data sets; checkpoints from strong to weak."""
    status = rows["status"].fillna("ok")
    shown = rows[rows["final"] & ~rows["suite"] & (status != "skipped").to_numpy(bool)]
    tasks: dict[str, list[dict[str, Any]]] = {}
    for row in records(shown[list(_USED)]):
        tasks.setdefault(text(row["task"]), []).append(row)
    ordered = sorted(tasks, key=vocabulary.task_place)
    return [_matrix(f"heat-{i}", task, tasks[task], config) for i, task in enumerate(ordered)]


def _matrix(name: str, task: str, rows: list[dict[str, Any]], config: Config) -> Matrix:
    groups: dict[tuple[str, float], dict[str, list[dict[str, Any]]]] = {}
    for row in rows:
        groups.setdefault((text(row["dataset"]), whole(row["shots"])), {}).setdefault(text(row["metric"]), []).append(
            row
        )
    columns: list[tuple[str, str, dict[str, Value]]] = []
    repeated = 0
    for (dataset, shots), metrics in sorted(groups.items()):
        for metric in main_metrics(task, dataset, list(metrics), config):
            values: dict[str, Value] = {}
            for row in metrics[metric]:
                known = values.get(row["model"])
                repeated += known is not None and not known.missing
                if known is None or known.missing:
                    values[row["model"]] = value_of(row)
            columns.append((vocabulary.dataset(dataset, None if math.isinf(shots) else int(shots)), metric, values))
    facts = {row["model"]: (str(row["model"]), text(row["arch"]), text(row["source"])) for row in rows}
    places = np.array([_places([values.get(model) for model in facts]) for _, _, values in columns])
    order = np.argsort(-np.nan_to_num(_means(places), nan=-1.0), kind="stable")
    models = [list(facts)[i] for i in order]
    cells = tuple(
        tuple(
            Cell(values[model], float(places[column][index])) if model in values else None
            for column, (_, _, values) in enumerate(columns)
        )
        for model, index in zip(models, order, strict=True)
    )
    heads = tuple(
        Column(title, metric, sum(model not in values or bool(values[model].missing) for model in models))
        for title, metric, values in columns
    )
    return Matrix(name, vocabulary.task(task).title, heads, tuple(facts[model] for model in models), cells, repeated)


def _places(values: list[Value | None]) -> np.ndarray:
    found = np.array([value.value if value else math.nan for value in values])
    good = np.isfinite(found)
    if not good.any():
        return found
    low, high = found[good].min(), found[good].max()
    return np.where(good, (found - low) / (high - low) if high > low else 0.5, math.nan)


def _means(places: np.ndarray) -> np.ndarray:
    good = np.isfinite(places)
    return np.where(good, places, 0).sum(axis=0) / np.maximum(good.sum(axis=0), 1)

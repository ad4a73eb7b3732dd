"""Heat maps: checkpoint by data set, one per task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from clipeval import vocabulary
from clipeval.config import Config
from clipeval.reporting.boards import Value
from clipeval.reporting.measured import Measured, by_suite, models_of


@dataclass(frozen=True)
class Column:
    """A data set and metric under the heading of its suite. ``places`` in [0, 1], NaN without a value, say where the
    checkpoints lie between the weakest and the best."""

    suite: str
    title: str
    metric: str
    percent: bool
    values: tuple[Value | None, ...]
    places: tuple[float, ...]


@dataclass(frozen=True)
class Matrix:
    """One entry per checkpoint in ``models``, ``means`` and the columns' values; a mean is that of all columns, NaN for
    a checkpoint that lacks one. ``repeated``: measurements of the same thing, which are only on the leaderboards."""

    id: str
    title: str
    models: tuple[str, ...]
    means: tuple[float, ...]
    columns: tuple[Column, ...]
    repeated: int


def matrices(columns: Sequence[Measured], config: Config) -> list[Matrix]:
    """One heat map per task, of the main metrics on its data sets; checkpoints from strong to weak."""
    found: list[Matrix] = []
    for task in dict.fromkeys(column.task for column in columns if not column.suite):
        own = [column for column in columns if column.task == task and not column.suite]
        asked = [column.dataset for column in columns if column.task == task and column.suite]
        found.append(_matrix(f"heat-{len(found)}", task, by_suite(own, config, task, asked)))
    return found


def _matrix(name: str, task: str, columns: Sequence[tuple[str, Measured]]) -> Matrix:
    models = list(models_of([column for _, column in columns]))
    values = np.array([[_number(column.values.get(model)) for model in models] for _, column in columns])
    places = np.array([_places(row, column.scale.lower) for row, (_, column) in zip(values, columns, strict=True)])
    alike = len({column.scale for _, column in columns}) == 1
    means = values.mean(axis=0) if alike else np.full(len(models), np.nan)
    strength = means if np.isfinite(means).all() and not columns[0][1].scale.lower else _strength(places)
    order = np.argsort(-strength, kind="stable")
    ordered = [models[i] for i in order]
    return Matrix(
        id=name,
        title=vocabulary.task(task).title,
        models=tuple(ordered),
        means=tuple(means[order].tolist()),
        columns=tuple(
            Column(
                suite=suite,
                title=_below(c.title, suite),
                metric=c.metric,
                percent=c.scale.percent,
                values=tuple(map(c.values.get, ordered)),
                places=tuple(own.tolist()),
            )
            for (suite, c), own in zip(columns, places[:, order], strict=True)
        ),
        repeated=sum(column.repeated for _, column in columns),
    )


def _below(title: str, suite: str) -> str:
    """``vtab/dtd`` as ``dtd`` under the heading VTAB."""
    folder, _, rest = title.partition("/")
    return rest if rest and folder.lower() == suite.lower() else title


def _number(value: Value | None) -> float:
    return value.value if value and not value.limited else float("nan")


def _strength(places: np.ndarray) -> np.ndarray:
    """The mean place of each checkpoint among those that have a value, of ``[columns, checkpoints]``."""
    good = np.isfinite(places)
    found: np.ndarray = np.where(good, places, 0).sum(axis=0) / np.maximum(good.sum(axis=0), 1)
    return np.where(good.any(axis=0), found, -1.0)


def _places(values: np.ndarray, lower: bool) -> np.ndarray:
    """Where values lie between the best (1) and what is as far below the median as that is above it (0), if not the
    weakest: a few weak checkpoints do not make all others look alike."""
    good = np.isfinite(values)
    if not good.any():
        return values
    better = -values if lower else values
    best, middle = better[good].max(), np.median(better[good])
    low = max(better[good].min(), 2 * middle - best)
    return np.where(good, np.clip((better - low) / (best - low), 0, 1) if best > low else 0.5, np.nan)

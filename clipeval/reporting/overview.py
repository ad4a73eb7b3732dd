"""The overview: one line per checkpoint, one column per suite, and the data sets."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from clipeval import vocabulary
from clipeval.config import Config
from clipeval.reporting.boards import Scale, Value, ranks, value_of
from clipeval.reporting.measured import Measured, is_of, models_of, suite_heading
from clipeval.reporting.rows import number
from clipeval.results.columns import records
from clipeval.results.schema import to_frame
from clipeval.results.suites import SEVERAL_TASKS, requests, suite_rows

if TYPE_CHECKING:
    import pandas as pd

MOST_SHOWN = 8
"""Columns that are there before somebody chooses others."""
_HEADLINES = ("imagenet1k", "mscoco_captions", "flickr30k")
MIXED = "main_metric"
COMPUTED = -1
"""The row of a value that is in no table: a mean of others."""


@dataclass(frozen=True)
class Column:
    """``under`` is what stands below the title, ``hint`` says in full what was measured; ``values`` has one entry per
    checkpoint."""

    title: str
    under: str
    hint: str
    shown: bool
    scale: Scale
    values: tuple[Value | None, ...]


@dataclass(frozen=True)
class Overview:
    """Checkpoints from strong to weak by the first column. ``ranks`` are as on a leaderboard."""

    models: tuple[str, ...]
    ranks: tuple[int | None, ...]
    columns: tuple[Column, ...]


def overview(rows: pd.DataFrame, columns: Sequence[Measured], config: Config) -> Overview:
    """Suites of the table, those of the configuration of which it has all data sets, the mean of a task that has
    neither; then the data sets, those of most checkpoints first."""
    suites = [column for column in columns if column.suite]
    single = [column for column in columns if not column.suite]
    suites += _completed(rows, single, {(column.task, column.dataset) for column in suites}, config)
    heads = [*suites, *_means(single, {column.task for column in suites})]
    heads.sort(key=lambda column: vocabulary.task_place(column.task))
    single.sort(key=lambda column: (_headline(column.dataset), -len(column.values)))
    found = [*heads, *single]
    models = list(models_of(found))
    if not found:
        return Overview((), (), ())
    order = sorted(models, key=lambda model: _order(found[0], model))
    lines = [found[0].values.get(model) for model in order]
    shown = _shown(heads, single)
    return Overview(
        tuple(order),
        tuple(ranks(lines, -1 if found[0].scale.lower else 1)),
        tuple(
            Column(
                title=suite_heading(column.dataset, config) if column.suite else column.title,
                under=_under(column),
                hint=config.suites[column.dataset].title if column.dataset in config.suites else column.dataset,
                shown=place in shown,
                scale=column.scale,
                values=tuple(map(column.values.get, order)),
            )
            for place, column in enumerate(found)
        ),
    )


def _under(column: Measured) -> str:
    """The metric, after the task where its name does not say it."""
    metric, task = vocabulary.metric(column.metric).heading, vocabulary.task(column.task)
    return metric if task.name.startswith(SEVERAL_TASKS) else f"{task.title} · {metric}"


def _headline(dataset: str) -> int:
    return _HEADLINES.index(dataset) if dataset in _HEADLINES else len(_HEADLINES)


def _shown(heads: Sequence[Measured], single: Sequence[Measured]) -> Collection[int]:
    """The columns that are there at first: suites and means, then data sets of tasks that have none, then others."""
    headed = {column.task for column in heads}
    rest = sorted(range(len(single)), key=lambda i: (_headline(single[i].dataset), single[i].task in headed, i))
    return {*range(min(len(heads), MOST_SHOWN)), *(len(heads) + i for i in rest[: max(0, MOST_SHOWN - len(heads))])}


def _order(column: Measured, model: str) -> tuple[bool, float]:
    value = column.values.get(model)
    if value is None or value.missing:
        return True, 0.0
    return False, value.value if column.scale.lower else -value.value


def _completed(
    rows: pd.DataFrame, single: Sequence[Measured], there: Collection[tuple[str, str]], config: Config
) -> Iterator[Measured]:
    """Suites that nobody asked for and that can be averaged for a checkpoint all the same."""
    tasks = list(dict.fromkeys(column.task for column in single))
    sets = {column.dataset for column in single}
    names = [name for name in config.suites if len(config.members(name)) > 1 and sets.issuperset(config.members(name))]
    members = {member for name in names for member in config.members(name)}
    wanted = rows["final"] & ~rows["suite"] & rows["shots"].isna() & rows["dataset"].isin(members)
    plain = records(rows[wanted.to_numpy(bool)])
    for request in requests(config, names, tasks):
        task = request.tasks[0] if len(request.tasks) == 1 else SEVERAL_TASKS
        if (task, request.name) in there or not is_of(request.name, task, config):
            continue
        averaged = to_frame(suite_rows(request, plain))
        averaged = averaged[averaged["value"].notna().to_numpy(bool)].assign(row=COMPUTED, good=True)
        values = {row["model"]: value_of(row) for row in records(averaged)}
        if values:
            yield Measured(task, request.name, None, request.metric, True, Scale(False, True), values, 0)


def _means(single: Sequence[Measured], headed: Collection[str]) -> Iterator[Measured]:
    """Of tasks without a suite: the mean over its data sets of the checkpoints that have them all."""
    for task in dict.fromkeys(column.task for column in single):
        own = [column for column in single if column.task == task]
        if task in headed or len({column.dataset for column in own}) < 2 or len({column.scale for column in own}) > 1:
            continue
        parts = {model: [column.values.get(model) for column in own] for model in models_of(own)}
        values = {model: mean for model, found in parts.items() if (mean := _mean(found)) is not None}
        if values:
            count = len({column.dataset for column in own})
            title, metric = f"Mean of {count} data sets", _together({column.metric for column in own})
            yield replace(own[0], dataset=title, shots=None, metric=metric, values=values, repeated=0)


def _together(metrics: Collection[str]) -> str:
    """The metric that the mean of several is."""
    if len(metrics) == 1:
        return next(iter(metrics))
    return next((known.name for known in vocabulary.METRICS.values() if set(known.mean_of) == set(metrics)), MIXED)


def _mean(values: Sequence[Value | None]) -> Value | None:
    """The mean of values whose errors are independent (as in the averages of suites); None if one is missing."""
    there = [value for value in values if value is not None and not value.missing]
    if len(there) < len(values):
        return None
    n = len(there)
    mean = sum(value.value for value in there) / n
    half = math.sqrt(sum(((value.high - value.low) / 2) ** 2 for value in there)) / n
    return Value(COMPUTED, mean, number(mean - half), number(mean + half))

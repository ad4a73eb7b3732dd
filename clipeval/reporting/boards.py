"""Leaderboards: one per suite or data set and task, one line per checkpoint, one column per metric."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from clipeval import vocabulary
from clipeval.config import Config
from clipeval.reporting.rows import number, text, why_missing
from clipeval.results.columns import VERSIONS, mixed, records
from clipeval.results.ledger import Row
from clipeval.results.schema import CIRCUMSTANCES
from clipeval.results.suites import main_metrics

if TYPE_CHECKING:
    import pandas as pd

_APART = ("samples_seen", "stage", "seed", "protocol", *CIRCUMSTANCES, "results_file")
"""What can tell two measurements of one checkpoint apart."""
VALUE = ("row", "good", "metric", "value", "ci_low", "ci_high", "status", "error", "higher_is_better")
"""The columns that ``value_of`` and the choice of a metric read."""
_ABOUT = ("suite", "model", "arch", "source", "gmacs", "dataset", "task", "shots", "notes")
_USED = tuple(dict.fromkeys((*VALUE, *_ABOUT, *VERSIONS, *_APART)))
_circumstances = itemgetter(*_APART)
_LONGEST = 40


@dataclass(frozen=True)
class Value:
    """One number of the page. ``missing`` says why there is none; ``row`` is the row of the table it comes from;
    ``limited``: it is of a part of the data set only."""

    row: int
    value: float
    low: float
    high: float
    missing: str = ""
    limited: bool = False


class Scale(NamedTuple):
    """How values of a metric are read: ``lower`` is better, and whether they are shown in ``percent``."""

    lower: bool
    percent: bool


@dataclass(frozen=True)
class Line:
    """One checkpoint on a board. ``note`` tells it from other lines of the same checkpoint; ``rank`` is as
    ``ranks`` has it, and None without a value and where only a part of the data set was scored (``limited``)."""

    rank: int | None
    model: str
    arch: str
    source: str
    samples_seen: float
    gmacs: float
    note: str
    limited: bool
    values: tuple[Value | None, ...]


@dataclass(frozen=True)
class Board:
    """A leaderboard, best first by its first metric. ``group`` and ``title`` place it in the menu of boards."""

    id: str
    group: str
    title: str
    dataset: str
    task: str
    metrics: tuple[str, ...]
    scales: tuple[Scale, ...]
    lines: tuple[Line, ...]
    remarks: tuple[str, ...]


def boards(rows: pd.DataFrame, config: Config) -> list[Board]:
    """All leaderboards: suites first, then data sets, each in the order of tasks and the configuration."""
    shown = rows[rows["final"] & (rows["status"].fillna("ok") != "skipped").to_numpy(bool)]
    groups: dict[tuple[bool, str, str, float], list[Row]] = {}
    for row in records(shown[list(_USED)]):
        key = (not row["suite"], text(row["task"]), text(row["dataset"]), whole(row["shots"]))
        groups.setdefault(key, []).append(row)
    place = placed(config)
    ordered = sorted(groups.items(), key=lambda item: place(*item[0]))
    return [_board(f"board-{i}", key, group, config) for i, (key, group) in enumerate(ordered)]


def placed(config: Config) -> Callable[[bool, str, str, float], tuple[Any, ...]]:
    """The sort key of what is no suite, a task, a data set and shots: suites and data sets as in the configuration."""
    places = {name: place for place, name in enumerate((*config.suites, *config.datasets))}

    def key(single: bool, task: str, dataset: str, shots: float) -> tuple[Any, ...]:
        place = places.get(dataset, places.get(dataset.partition("@")[0], len(places)))
        return single, vocabulary.task_place(task), place, dataset, shots

    return key


def whole(value: Any) -> float:
    """A count; infinity where it is missing, as of the shots of a probe on all there is."""
    value = number(value)
    return math.inf if math.isnan(value) else value


def _board(name: str, key: tuple[bool, str, str, float], rows: list[Row], config: Config) -> Board:
    single, task, dataset, shots = key
    there = list(dict.fromkeys(row["metric"] for row in rows if isinstance(row["metric"], str)))
    main = main_metrics(task, dataset, there, config)
    metrics = [*main, *sorted(set(there) - set(main), key=vocabulary.metric_place)]
    scales = [scale_of(metric, [row for row in rows if row["metric"] == metric]) for metric in metrics]
    title = config.suites[dataset].title if not single and dataset in config.suites else ""
    return Board(
        id=name,
        group=f"{'Data sets' if single else 'Suites'} · {vocabulary.task(task).title}",
        title=title or vocabulary.dataset(dataset, None if math.isinf(shots) else int(shots)),
        dataset=dataset,
        task=task,
        metrics=tuple(metrics),
        scales=tuple(scales),
        lines=tuple(_ranked(list(_lines(rows, metrics)), -1 if scales and scales[0].lower else 1)),
        remarks=tuple(_remarks(rows)),
    )


def scale_of(metric: str, rows: Sequence[Row]) -> Scale:
    """Of the rows of one metric, as they say, else as the metric is known. Losses, and what goes beyond 1, are no share
    and are shown as they are."""
    said = [row["higher_is_better"] for row in rows if row["higher_is_better"] is not None]
    lower = not all(said) if said else vocabulary.metric(metric).lower
    return Scale(lower, not lower and all(abs(row["value"]) <= 1 for row in rows if row["good"]))


def _lines(rows: list[Row], metrics: Sequence[str]) -> Iterator[Line]:
    """One line per checkpoint, or several where one was measured under different circumstances."""
    models: dict[str, list[Row]] = {}
    for row in rows:
        models.setdefault(str(row["model"]), []).append(row)
    for model, group in models.items():
        alike = all(_circumstances(row) == _circumstances(group[0]) for row in group)
        varying = [] if alike else [name for name in _APART if _differs(name, group)]
        parts: dict[tuple[str, ...], list[Row]] = {}
        for row in group:
            parts.setdefault(tuple(_brief(row.get(name)) for name in varying), []).append(row)
        for circumstances, part in parts.items():
            first = part[0]
            limit = number(first["limit"])
            notes = [] if math.isnan(limit) else [f"limited to {limit:,.0f} samples"]
            named = zip(varying, circumstances, strict=True)
            notes += [f"{name.replace('_', ' ')} {_short(value)}" for name, value in named if name != "limit"]
            values = {row["metric"]: value_of(row) for row in part}
            yield Line(
                rank=None,
                model=model,
                arch=text(first["arch"]),
                source=text(first["source"]),
                samples_seen=number(first["samples_seen"]),
                gmacs=number(first["gmacs"]),
                note=" · ".join(notes),
                limited=not math.isnan(limit),
                values=tuple(values.get(metric) for metric in metrics),
            )


def _differs(name: str, rows: Sequence[Row]) -> bool:
    return len({row.get(name) for row in rows}) > 1 and len({_brief(row.get(name)) for row in rows}) > 1


def value_of(row: Row) -> Value:
    """The number of a row of the table, or why it has none."""
    if not row["good"]:
        return Value(row["row"], math.nan, math.nan, math.nan, why_missing(row))
    low, high = number(row["ci_low"]), number(row["ci_high"])
    return Value(row["row"], float(row["value"]), low, high, limited=row["status"] == "limited")


def _brief(value: Any) -> str:
    if isinstance(value, str):
        return value
    value = number(value)
    return "not given" if math.isnan(value) else f"{value:,.0f}"


def _short(value: str) -> str:
    return value if len(value) <= _LONGEST else f"{value[: _LONGEST - 1]}…"


def ranks(values: Sequence[Value | None], sign: int) -> list[int | None]:
    """For each value 1 + the number of those whose interval lies wholly beyond its own, so that what intervals do not
    tell apart shares a rank; None where there is no value, or one of a part of
    the data set only. ``sign`` is -1 where less is better.

    Source: the ranks of Chatbot Arena (Chiang et al. 2024, 2403.04132). A value without an interval is exact.
    """
    ends = np.array([sorted((sign * low, sign * high)) for low, high in map(_interval, values)]).reshape(-1, 2)
    lows = np.sort(ends[:, 0])  # NaN goes last, and is beyond nothing
    there = int(np.isfinite(lows).sum())
    beyond = there - np.searchsorted(lows[:there], ends[:, 1], side="right")
    return [1 + int(n) if math.isfinite(low) else None for n, low in zip(beyond, ends[:, 0], strict=True)]


def _interval(value: Value | None) -> tuple[float, float]:
    if value is None or value.missing or value.limited:
        return math.nan, math.nan
    known = math.isfinite(value.low) and math.isfinite(value.high)
    return (value.low, value.high) if known else (value.value, value.value)


def _main(line: Line) -> float:
    first = line.values[0] if line.values else None
    return first.value if first else math.nan


def _ranked(lines: list[Line], sign: int) -> Iterator[Line]:
    """Best first, then lines of limited runs, then those without a value; ``sign`` is -1 where less is better."""

    def order(line: Line) -> tuple[bool, bool, float, str, str]:
        value = _main(line)
        return math.isnan(value), line.limited, -sign * value, line.model, line.note

    ordered = sorted(lines, key=order)
    ranked = ranks([None if line.limited or not line.values else line.values[0] for line in ordered], sign)
    yield from (replace(line, rank=rank) for line, rank in zip(ordered, ranked, strict=True))


def _remarks(rows: list[Row]) -> Iterator[str]:
    import pandas as pd

    good = [row for row in rows if row["good"]]
    if good and all(math.isnan(number(row["ci_low"])) for row in good):
        yield "These values came without intervals."
    if any('"selected_on": "test"' in text(row["notes"]) for row in rows):
        yield "Hyper-parameters were chosen on the test set, as the study did: values are optimistic."
    yield from (
        f"{said[:1].upper()}{said[1:]}; see each value's origin."
        for said in mixed(pd.DataFrame(rows, columns=["model", *VERSIONS]))
    )

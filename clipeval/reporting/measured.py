"""The columns that stand for a table: per task, data set or suite, and main metric, the value of each checkpoint."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from clipeval import vocabulary
from clipeval.config import Config
from clipeval.reporting.boards import VALUE, Scale, Value, placed, scale_of, value_of, whole
from clipeval.reporting.rows import text
from clipeval.results.columns import records
from clipeval.results.ledger import Row
from clipeval.results.suites import main_metrics

if TYPE_CHECKING:
    import pandas as pd

_USED = ("model", "dataset", "task", "shots", "suite", *VALUE)
OTHERS = "Other data sets"


@dataclass(frozen=True)
class Measured:
    """``values`` are by checkpoint; ``repeated`` counts measurements of the same thing beyond the first of each."""

    task: str
    dataset: str
    shots: int | None
    metric: str
    suite: bool
    scale: Scale
    values: dict[str, Value]
    repeated: int

    @property
    def title(self) -> str:
        """``ImageNet``, ``ImageNet, 10 shots``"""
        return vocabulary.dataset(self.dataset, self.shots)


def measured(rows: pd.DataFrame, config: Config) -> list[Measured]:
    """Of the main metrics: suites before data sets, tasks in their order, both in that of the configuration."""
    shown = rows[rows["final"] & (rows["status"].fillna("ok") != "skipped").to_numpy(bool)]
    groups: dict[tuple[bool, str, str, float], dict[str, list[Row]]] = {}
    for row in records(shown[list(_USED)]):
        key = (not row["suite"], text(row["task"]), text(row["dataset"]), whole(row["shots"]))
        groups.setdefault(key, {}).setdefault(text(row["metric"]), []).append(row)
    place = placed(config)
    found = []
    for key in sorted(groups, key=lambda key: place(*key)):
        single, task, dataset, shots = key
        for metric in main_metrics(task, dataset, list(groups[key]), config):
            number = None if math.isinf(shots) else int(shots)
            own = groups[key][metric]
            found.append(Measured(task, dataset, number, metric, not single, scale_of(metric, own), *_first(own)))
    return found


def _first(rows: Sequence[Row]) -> tuple[dict[str, Value], int]:
    """The first value of each checkpoint, and how many came after."""
    values: dict[str, Value] = {}
    repeated = 0
    for row in rows:
        known = values.get(row["model"])
        repeated += known is not None and not known.missing
        if known is None or known.missing:
            values[row["model"]] = value_of(row)
    return values, repeated


def by_suite(
    columns: Sequence[Measured], config: Config, task: str, asked: Sequence[str]
) -> list[tuple[str, Measured]]:
    """The columns of one task with the heading of the smallest suite that each data set is in, those of a suite side by
    side. Suites that somebody asked for go first; one whose title names another task is none of this one."""
    suites = [name for name in config.suites if is_of(name, task, config)]
    members = {name: set(config.members(name)) for name in suites}
    suites.sort(key=lambda name: (name not in asked, len(members[name])))
    homes = [next((name for name in suites if column.dataset in members[name]), "") for column in columns]
    order = list(dict.fromkeys(sorted(homes, key=lambda name: not name)))
    headed = [
        (suite_heading(home, config) if home else OTHERS, home, c) for home, c in zip(homes, columns, strict=True)
    ]
    headed.sort(key=lambda item: order.index(item[1]))
    return [(heading, column) for heading, _, column in headed]


def is_of(suite: str, task: str, config: Config) -> bool:
    """Whether a suite may be one of a task: its title names no other."""
    title = config.suites[suite].title.lower()
    return not any(known.title.lower() in title for known in vocabulary.TASKS.values() if known.name != task)


def suite_heading(name: str, config: Config) -> str:
    """``VTAB``, without the remark in brackets that its full title may have."""
    known = vocabulary.dataset(name)
    title = config.suites[name].title if name in config.suites else ""
    return known if known != name or not title else title.partition(" (")[0].partition(": ")[0]


def models_of(columns: Sequence[Measured]) -> Iterator[str]:
    """Every checkpoint once, in the order of the table."""
    yield from dict.fromkeys(model for column in columns for model in column.values)

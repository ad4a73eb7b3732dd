"""A results table as the gate reads it: plain rows, and the per-sample outcomes behind them where they are kept."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from clipeval.paths import exists, expand
from clipeval.results import samples
from clipeval.results.columns import records
from clipeval.results.ledger import Ledger, Row, suites_asked
from clipeval.results.outcomes import Shelf
from clipeval.results.reading import Results as Given
from clipeval.results.reading import named, read_results
from clipeval.results.schema import SAMPLES
from clipeval.results.suites import SEVERAL_TASKS, SuiteRequest
from clipeval.stats.scored import NotPairedError, Scored
from clipeval.tasks import TASKS

Key = tuple[Any, ...]

_COMPARABLE = (*SAMPLES, "precision", "n", "higher_is_better")


class Results:
    """One side of a comparison: the table of a results folder, or of anything else that is one.

    Outcomes per sample are found through the ledger beside the table. Raises UsageError for what is no table.
    """

    def __init__(self, source: Given) -> None:
        self._folder: Path | None = None
        self.name, self.frame = named(source), read_results(source)
        if isinstance(source, str | Path) and exists(path := expand(source)):
            self._folder = path if path.is_dir() else path.parent
        distinct = self.frame.drop_duplicates()
        self.rows = records(distinct.assign(protocol=distinct["protocol"].fillna("default")))
        self._of_model: dict[str, list[Row]] = {}
        for row in self.rows:
            self._of_model.setdefault(row["model"], []).append(row)

    @cached_property
    def _shelf(self) -> Shelf | None:
        """Read where outcomes are asked for."""
        return Shelf(Ledger(self._folder)) if self._folder and samples.are_in(self._folder) else None

    @cached_property
    def suites(self) -> list[SuiteRequest]:
        """Those that were asked for."""
        return [SuiteRequest.from_json(suite) for suite in suites_asked(self._folder)] if self._folder else []

    def models(self) -> list[str]:
        """The checkpoints with a value, in the order of the table; where there is none, those that failed."""
        names = dict.fromkeys(str(row["model"]) for row in self.rows if has_value(row))
        return list(names or dict.fromkeys(str(row["model"]) for row in self.rows if row.get("status") == "failed"))

    def of_model(self, model: str) -> Sequence[Row]:
        """The rows of one checkpoint."""
        return self._of_model.get(model, ())

    def scored(self, row: Row) -> Scored:
        """The per-sample outcomes behind a row. Raises NotPairedError where there are none that belong to it."""
        if self._shelf is None:
            raise NotPairedError("there are no per-sample outcomes of it")
        return self._shelf.scored(row)


def has_value(row: Row) -> bool:
    """Whether a row holds a measured number."""
    value = row.get("value")
    return row.get("status") in (None, "ok", "limited") and value is not None and math.isfinite(value)


def key_of(row: Row) -> Key:
    """What is measured: rows of two checkpoints with equal keys are compared. The seed matters where it draws training
    images."""
    task = str(row["task"])
    seeded = "train" in TASKS[task].needs if task in TASKS else task != SEVERAL_TASKS
    return row["dataset"], task, row["metric"], row["shots"], row["seed"] if seeded else None, row["protocol"]


def differences(baseline: Row, current: Row, same_version: bool) -> list[str]:
    """Why two rows of the same key are not values of the same measurement. What only one table says is not known to
    differ, but for the limit, which is absent where there was none."""
    found = []
    for name in (*_COMPARABLE, *(("task_version",) if same_version else ())):
        before, now = baseline.get(name), current.get(name)
        if before != now and (name == "limit" or None not in (before, now)):
            found.append(f"{name} {_short(now)} here, {_short(before)} in the baseline")
    return found


def _short(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= 24 else f"{text[:12]}…"

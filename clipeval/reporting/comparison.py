"""Paired comparison: two checkpoints on the same samples, computed for all pairs of a few checkpoints."""

from __future__ import annotations

import contextlib
import itertools
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from clipeval import vocabulary
from clipeval.config import Config
from clipeval.results.columns import records
from clipeval.results.outcomes import Shelf, has_outcomes, shelves_of
from clipeval.results.schema import SAMPLES
from clipeval.results.suites import main_metrics
from clipeval.stats import paired
from clipeval.stats.paired import Paired
from clipeval.stats.scored import NotPairedError, OtherSamplesError, Scored

if TYPE_CHECKING:
    import pandas as pd

MOST_MODELS = 16
"""Checkpoints of which all pairs are computed."""


@dataclass(frozen=True)
class Comparison:
    """``cells`` names the measurements; ``rows[m][c]`` is the row of the table in which model m has cell c, -1 without;
    ``pairs[a, b][c]`` compares models a < b, a minus b, where both have outcomes on the same samples."""

    models: tuple[str, ...]
    left_out: int
    cells: tuple[tuple[str, str], ...]
    """Data set with shots, and metric."""
    rows: tuple[tuple[int, ...], ...]
    pairs: dict[tuple[int, int], dict[int, Paired]]


def compare(rows: pd.DataFrame, config: Config) -> Comparison:
    """All pairs of the checkpoints with the most per-sample outcomes, at most ``MOST_MODELS``."""
    columns = _columns(rows[(rows["good"] & rows["final"] & ~rows["suite"]).to_numpy(bool)], config)
    counts = Counter(model for column in columns.values() for model in column)
    ranked = [model for model, _ in counts.most_common()]
    models = ranked[:MOST_MODELS]
    cells = [cell for cell, column in columns.items() if len(set(models) & set(column)) > 1]
    pairs: dict[tuple[int, int], dict[int, Paired]] = {}
    for place, cell in enumerate(cells):
        sides = [(number, _scored(columns[cell].get(model))) for number, model in enumerate(models)]
        there = [(number, side) for number, side in sides if side is not None]
        for (a, first), (b, second) in itertools.combinations(there, 2):
            with contextlib.suppress(OtherSamplesError):
                pairs.setdefault((a, b), {})[place] = paired.compare(first, second)
    where = tuple(tuple(columns[cell][m].row["row"] if m in columns[cell] else -1 for cell in cells) for m in models)
    titles = tuple((_title(cell), vocabulary.metric(cell[1]).heading) for cell in cells)
    return Comparison(tuple(models), len(ranked) - len(models), titles, where, pairs)


class _Measured(NamedTuple):
    row: dict[str, Any]
    shelf: Shelf


def _scored(measured: _Measured | None) -> Scored | None:
    try:
        return measured.shelf.scored(measured.row) if measured else None
    except NotPairedError:
        return None  # the page compares what it can


def _columns(rows: pd.DataFrame, config: Config) -> dict[tuple[Any, ...], dict[str, _Measured]]:
    """The rows with outcomes by what is measured, then by checkpoint."""
    shelves = shelves_of(rows)
    columns: dict[tuple[Any, ...], dict[str, _Measured]] = {}
    wanted = _main_rows(rows, config)
    for row in records(rows[rows["row"].isin(wanted).to_numpy(bool)]):
        if has_outcomes(shelves, row):
            measured = _Measured(row, shelves[row["results_file"]])
            columns.setdefault(_cell(row), {}).setdefault(row["model"], measured)
    return columns


def _main_rows(rows: pd.DataFrame, config: Config) -> set[int]:
    """The rows of main metrics that have one outcome per sample; accuracy stands for the mean per class."""
    wanted: set[int] = set()
    for (task, dataset), group in rows.groupby(["task", "dataset"]):
        there = list(group["metric"].dropna().unique())
        main = ["acc1"] if "acc1" in there else main_metrics(str(task), str(dataset), there, config)
        wanted |= set(group.loc[group["metric"].isin(main).to_numpy(bool), "row"])
    return wanted


def _cell(row: dict[str, Any]) -> tuple[Any, ...]:
    """What two checkpoints must share to be compared."""
    names = ("shots", "seed", "limit", "protocol", "task_version", *SAMPLES)
    return (row["dataset"], row["metric"], row["task"], *(row.get(name) for name in names))


def _title(cell: tuple[Any, ...]) -> str:
    dataset, _, task, shots, seed, limit, *_ = cell
    parts = [vocabulary.dataset(dataset, int(shots) if shots else None), vocabulary.task(task).title.lower()]
    if shots is not None and seed is not None:
        parts.append(f"draw {seed:.0f}")
    if limit is not None:
        parts.append(f"{limit:.0f} samples")
    return " · ".join(parts)

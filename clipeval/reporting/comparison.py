"""Paired comparison: two checkpoints on the same samples, computed for all pairs of a few checkpoints."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

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

MOST_MODELS = 20
"""Checkpoints of which all pairs are computed."""
MOST_FLIPS = 6
"""Samples that a page shows of those that only one of two checkpoints gets right."""


@dataclass(frozen=True)
class Cell:
    """A measurement that checkpoints have in common: its data set with shots and task, and its metric."""

    dataset: str
    title: str
    metric: str


class Flips(NamedTuple):
    """Ids of samples, or of captions, that only the first and only the second of two checkpoints gets right."""

    first: tuple[str, ...]
    second: tuple[str, ...]


@dataclass(frozen=True)
class Comparison:
    """``models`` are from strong to weak; ``rows[m][c]`` is the row of the table in which model m has cell c, -1
    without; ``pairs[a, b][c]`` compares models a < b, a minus b, where both have outcomes on the same samples, and
    ``flips[a, b][c]`` are samples that they differ on, at most ``MOST_FLIPS`` of each kind."""

    models: tuple[str, ...]
    left_out: int
    cells: tuple[Cell, ...]
    rows: tuple[tuple[int, ...], ...]
    pairs: dict[tuple[int, int], dict[int, Paired]]
    flips: dict[tuple[int, int], dict[int, Flips]]


def compare(rows: pd.DataFrame, config: Config) -> Comparison:
    """All pairs of the checkpoints with the most per-sample outcomes, of those the best, at most ``MOST_MODELS``."""
    columns = _columns(rows[(rows["good"] & rows["final"] & ~rows["suite"]).to_numpy(bool)], config)
    ranked = _ranked(columns)
    models = ranked[:MOST_MODELS]
    cells = [cell for cell, column in columns.items() if len(set(models) & set(column)) > 1]
    pairs: dict[tuple[int, int], dict[int, Paired]] = {}
    flips: dict[tuple[int, int], dict[int, Flips]] = {}
    for place, cell in enumerate(cells):
        sides = [(number, _scored(columns[cell].get(model))) for number, model in enumerate(models)]
        there = [(number, side) for number, side in sides if side is not None]
        shuffled = _shuffled([side for _, side in there])
        for ((a, first), one), ((b, second), other) in itertools.combinations(zip(there, shuffled, strict=True), 2):
            with contextlib.suppress(OtherSamplesError):
                pairs.setdefault((a, b), {})[place] = paired.compare(first, second)
                if one and other:
                    flips.setdefault((a, b), {})[place] = _flips(one, other)
    where = tuple(tuple(columns[cell][m].row["row"] if m in columns[cell] else -1 for cell in cells) for m in models)
    named = tuple(Cell(str(cell[0]), _title(cell), vocabulary.metric(cell[1]).heading) for cell in cells)
    return Comparison(tuple(models), len(ranked) - len(models), named, where, pairs, flips)


def _ranked(columns: dict[tuple[Any, ...], dict[str, _Measured]]) -> list[str]:
    """Checkpoints with the most cells first, of those from strong to weak: by the mean place among the others."""
    places: dict[str, list[float]] = {}
    for (_, metric, *_), column in columns.items():
        sign = -1 if vocabulary.metric(metric).lower else 1
        order = sorted(column, key=lambda model: sign * column[model].row["value"])
        for place, model in enumerate(order):
            places.setdefault(model, []).append((place + 1) / len(order))
    return sorted(places, key=lambda model: (-len(places[model]), -sum(places[model]) / len(places[model]), model))


class _Shuffled(NamedTuple):
    ids: np.ndarray
    outcomes: np.ndarray


def _shuffled(sides: Sequence[Scored]) -> list[_Shuffled | None]:
    """What is right or wrong per sample, in an order that nobody chose and that all share, so that the same pictures
    serve many pairs; None for metrics of another kind and for other samples than those of the first."""
    found: list[_Shuffled | None] = []
    order = np.random.default_rng(0).permutation(len(sides[0].ids)) if sides else np.arange(0)
    for side in sides:
        places = order
        if not side.ids.equals(sides[0].ids):
            places = side.ids.get_indexer(sides[0].ids)[order] if len(side.ids) == len(order) else np.array([-1])
        known = side.metric.scored in ("samples", "classes") and (places >= 0).all()
        found.append(_Shuffled(side.ids.to_numpy(str)[places], side.outcomes[places]) if known else None)
    return found


def _flips(first: _Shuffled, second: _Shuffled) -> Flips:
    differences = first.outcomes - second.outcomes
    return Flips(*(tuple(first.ids[np.flatnonzero(differences == sign)[:MOST_FLIPS]].tolist()) for sign in (1, -1)))


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

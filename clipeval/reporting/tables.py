"""The tables of the page as its script draws them: numbers are named by their row of the results table."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from clipeval import vocabulary
from clipeval.names import Names
from clipeval.reporting.boards import Board, Value
from clipeval.reporting.matrix import Matrix
from clipeval.reporting.overview import COMPUTED, Overview
from clipeval.reporting.rows import number, text
from clipeval.results.columns import records

if TYPE_CHECKING:
    import pandas as pd

OVERVIEW = "overview-table"
UNNAMED = "(no name)"


class _Checkpoints:
    """The checkpoints that tables name, by number."""

    def __init__(self, rows: pd.DataFrame, names: Names) -> None:
        facts = rows[["model", "arch", "source", "samples_seen", "gmacs"]].drop_duplicates("model")
        self.listed = [
            [
                names[row["model"]] or UNNAMED,
                str(row["model"]),
                text(row["arch"]),
                text(row["source"]),
                _finite(row["gmacs"]),
            ]
            for row in records(facts)
        ]
        self.number = {spec: number for number, (_, spec, *_) in enumerate(self.listed)}


def tables(
    rows: pd.DataFrame, names: Names, overview: Overview, boards: Sequence[Board], matrices: Sequence[Matrix]
) -> dict[str, Any]:
    """``models``: name, spec, architecture, source and GMACs of every checkpoint. ``tables``, by the id of its place:
    ``columns`` of title, hint and what else their kind has, and ``cells``, one list per column with a row of the
    results, null where there is none, or ``[value, low, high]`` of a mean that is in no row. ``missing``: why rows
    have no value."""
    models = _Checkpoints(rows, names)
    missing: dict[int, str] = {}
    found = {board.id: _board(board, models, missing) for board in boards}
    found |= {matrix.id: _matrix(matrix, models, missing) for matrix in matrices}
    if overview.columns:
        found[OVERVIEW] = _overview(overview, models, missing)
    return {"models": models.listed, "tables": found, "missing": missing}


def _board(board: Board, models: _Checkpoints, missing: dict[int, str]) -> dict[str, Any]:
    columns = zip(*(line.values for line in board.lines), strict=True) if board.lines else [() for _ in board.metrics]
    return {
        "title": board.title,
        "about": vocabulary.task(board.task).title,
        "columns": [
            [vocabulary.metric(metric).heading, "", scale.lower, scale.percent, 1, ""]
            for metric, scale in zip(board.metrics, board.scales, strict=True)
        ],
        "models": [models.number[line.model] for line in board.lines],
        "ranks": [line.rank for line in board.lines],
        "notes": {place: line.note for place, line in enumerate(board.lines) if line.note},
        "seen": [_finite(line.samples_seen) for line in board.lines],
        "cells": [_cells(column, missing) for column in columns],
    }


def _overview(overview: Overview, models: _Checkpoints, missing: dict[int, str]) -> dict[str, Any]:
    return {
        "title": "Overview",
        "about": "",
        "columns": [
            [column.title, column.hint, *column.scale, int(column.shown), column.under] for column in overview.columns
        ],
        "models": [models.number[model] for model in overview.models],
        "ranks": list(overview.ranks),
        "notes": {},
        "cells": [_cells(column.values, missing) for column in overview.columns],
    }


def _matrix(matrix: Matrix, models: _Checkpoints, missing: dict[int, str]) -> dict[str, Any]:
    return {
        "title": matrix.title,
        "about": "",
        "columns": [
            [column.title, vocabulary.metric(column.metric).heading, column.suite, column.percent]
            for column in matrix.columns
        ],
        "models": [models.number[model] for model in matrix.models],
        "means": [_finite(mean) for mean in matrix.means],
        "cells": [_cells(column.values, missing) for column in matrix.columns],
        "places": [[_short(place) for place in column.places] for column in matrix.columns],
    }


def _cells(values: Iterable[Value | None], missing: dict[int, str]) -> list[Any]:
    return list(_rows(values, missing))


def _rows(values: Iterable[Value | None], missing: dict[int, str]) -> Iterator[Any]:
    for value in values:
        if value is None:
            yield None
        elif value.row == COMPUTED:
            yield [value.value, _finite(value.low), _finite(value.high)]
        else:
            if value.missing:
                missing[value.row] = value.missing
            yield value.row


def _short(place: float) -> float | None:
    return round(place, 2) if math.isfinite(place) else None


def _finite(value: Any) -> float | None:
    found = number(value)
    return found if math.isfinite(found) else None

"""Executes a plan in this process: each checkpoint is loaded once, each image and each unique text encoded once."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from clipeval.errors import ClipevalError
from clipeval.evaluation.cell import Cell
from clipeval.evaluation.failures import OutOfMemory
from clipeval.evaluation.interrupt import look
from clipeval.evaluation.journal import Journal
from clipeval.evaluation.scoring import Scoring, may_be_beside
from clipeval.evaluation.workbench import Measured, Workbench


def execute(cells: list[Cell], bench: Workbench, journal: Journal) -> None:
    """Measure ``cells`` in order on ``bench``. Errors of a cell become its row in ``journal``; only KeyboardInterrupt
    and a full disk stop the run early."""
    groups = [list(group) for _, group in itertools.groupby(cells, key=lambda cell: cell.model.name)]
    for number, same_model in enumerate(groups):
        _measure(same_model, bench, journal, then=groups[number + 1][0] if number + 1 < len(groups) else None)
        bench.put_away(same_model[0], [later[0] for later in groups[number + 1 :]])


def _measure(same_model: list[Cell], bench: Workbench, journal: Journal, then: Cell | None) -> None:
    """Measure cells of one checkpoint, and fetch meanwhile what ``then`` needs."""
    try:
        bench.wait_for_weights(same_model[0])
        bench.take(same_model)
    except ClipevalError as error:
        for cell in same_model:
            journal.fail(cell, error)
        return
    if then is not None:  # not before: while a model is made, the hub's client is told that it is offline
        bench.fetch_ahead(then)
    scoring: Scoring | None = None
    for (_, beside), group in itertools.groupby(same_model, key=lambda cell: (cell.dataset, may_be_beside(cell))):
        alike = list(group)
        look()
        ready = bench.ready(alike) if beside and bench.is_free_to_score else None
        _finish(scoring, bench, journal)
        scoring = Scoring(alike, bench, ready) if ready else None
        if ready is None:
            _one_by_one(alike, bench, journal)
    _finish(scoring, bench, journal)


def _one_by_one(cells: Sequence[Cell], bench: Workbench, journal: Journal) -> None:
    for cell in cells:
        look()
        _record(cell, _measured(cell, bench), bench, journal)


def _measured(cell: Cell, bench: Workbench) -> Measured | ClipevalError:
    try:
        return bench.measure(cell)
    except ClipevalError as error:
        return error


def _finish(scoring: Scoring | None, bench: Workbench, journal: Journal) -> None:
    """Wait for the cells that are scored in a thread; this one alone writes what became of them. What has found no room
    beside the encoding is done again without it."""
    for cell, measured in scoring.results() if scoring else ():
        look()
        _record(cell, _measured(cell, bench) if isinstance(measured, OutOfMemory) else measured, bench, journal)


def _record(cell: Cell, measured: Measured | ClipevalError, bench: Workbench, journal: Journal) -> None:
    if isinstance(measured, ClipevalError):
        journal.fail(cell, measured)
    else:
        journal.finish(cell, bench.scored(cell), measured)

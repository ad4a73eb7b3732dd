"""Executes a plan in this process: each checkpoint is loaded once, each image and each unique text encoded once."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

from clipeval.errors import ClipevalError
from clipeval.evaluation.cell import Cell
from clipeval.evaluation.failures import OutOfMemory
from clipeval.evaluation.interrupt import look
from clipeval.evaluation.journal import Journal
from clipeval.evaluation.scoring import Scoring, may_be_beside
from clipeval.evaluation.workbench import Measured, Workbench


def execute(cells: list[Cell], arriving: Iterable[list[Cell]], bench: Workbench, journal: Journal) -> None:
    """Measure ``cells``, checkpoint by checkpoint, and those of data sets that are ``arriving``: the first checkpoint
    that can be loaded waits for them, the others find them here. Errors of a cell become its row in ``journal``; only
    KeyboardInterrupt and a full disk stop the run early."""
    waiting: dict[str, list[Cell]] = {}

    def add(found: list[Cell]) -> None:
        for cell in found:
            waiting.setdefault(cell.model.name, []).append(cell)

    add(cells)
    more = iter(arriving)
    while waiting or (found := next(more, None)) is not None:
        if not waiting:
            add(found or [])
            continue
        model = next(iter(waiting))
        same_model = waiting.pop(model)
        then = next((others[0] for others in waiting.values()), None)
        if _measure(same_model, bench, journal, then):
            for found in more:
                add(found)
                _measure(waiting.pop(model, []), bench, journal)
        bench.put_away(same_model[0], [others[0] for others in waiting.values()])


def _measure(same_model: list[Cell], bench: Workbench, journal: Journal, then: Cell | None = None) -> bool:
    """Measure cells of one checkpoint, and fetch meanwhile what ``then`` needs. Whether it can be loaded."""
    if not same_model:
        return True
    try:
        bench.wait_for_weights(same_model[0])
        bench.take(same_model)
    except ClipevalError as error:
        for cell in same_model:
            journal.fail(cell, error)
        return False
    if then is not None:  # so that its weights do not compete with those of this one
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
    return True


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

"""Executes a plan in this process: each checkpoint is loaded once, each image and each unique text encoded once."""

from __future__ import annotations

from collections.abc import Iterable

from clipeval.errors import ClipevalError
from clipeval.evaluation.cell import Cell
from clipeval.evaluation.interrupt import look
from clipeval.evaluation.journal import Journal
from clipeval.evaluation.workbench import Workbench


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
    if then is not None:  # not before: while a model is made, the hub's client is told that it is offline
        bench.fetch_ahead(then)
    for cell in same_model:
        look()
        try:
            measured = bench.measure(cell)
        except ClipevalError as error:
            journal.fail(cell, error)
        else:
            journal.finish(cell, bench.scored(cell), measured)
    return True

"""Executes a plan in this process: each checkpoint is loaded once, each image and each unique text encoded once."""

from __future__ import annotations

import itertools

from clipeval.errors import ClipevalError
from clipeval.evaluation.cell import Cell
from clipeval.evaluation.interrupt import look
from clipeval.evaluation.journal import Journal
from clipeval.evaluation.workbench import Workbench


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
    for cell in same_model:
        look()
        try:
            measured = bench.measure(cell)
        except ClipevalError as error:
            journal.fail(cell, error)
        else:
            journal.finish(cell, bench.scored(cell), measured)

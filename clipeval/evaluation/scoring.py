"""Tasks score one data set while the images of the next are encoded."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence

from clipeval.errors import ClipevalError
from clipeval.evaluation.cell import Cell
from clipeval.evaluation.workbench import Measured, Ready, Workbench


def may_be_beside(cell: Cell) -> bool:
    """Whether a cell may be scored in a thread: clipeval's own tasks only look at arrays, code of others may do as it
    likes, and fine-tuning needs the device for itself."""
    return not cell.task.extension and not cell.task.address and not cell.measure.metric


class Scoring:
    """Measures cells of one data set, whose images are ``ready``, in a thread that no end of the process waits for."""

    def __init__(self, cells: Sequence[Cell], bench: Workbench, ready: Ready) -> None:
        self._cells, self._bench, self._ready = cells, bench, ready
        self._answers: queue.SimpleQueue[Measured | BaseException] = queue.SimpleQueue()
        threading.Thread(target=self._work, daemon=True).start()

    def results(self) -> Iterator[tuple[Cell, Measured | ClipevalError]]:
        """What became of each cell, in order, as soon as it is known. Raises what is no error of a cell."""
        for cell in self._cells:
            answer = self._answers.get()
            if isinstance(answer, BaseException) and not isinstance(answer, ClipevalError):
                raise answer
            yield cell, answer

    def _work(self) -> None:
        for cell in self._cells:
            try:
                self._answers.put(self._bench.measure(cell, self._ready))
            except BaseException as error:
                self._answers.put(error)

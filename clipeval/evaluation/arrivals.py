"""Data sets that come during a run: the files of one are fetched while those before it are measured."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import suppress

from clipeval.console import RunProgress
from clipeval.errors import ClipevalError
from clipeval.evaluation.ahead import Ahead
from clipeval.evaluation.cell import Cell
from clipeval.evaluation.journal import Journal
from clipeval.evaluation.plan import Plan
from clipeval.remote import later

_FILES_AT_ONCE = 8


class Arrivals:
    """The cells to measure of each data set that is coming, in order; the first one begins to come at once."""

    def __init__(self, plan: Plan, journal: Journal, progress: RunProgress) -> None:
        self._plan, self._journal, self._progress = plan, journal, progress
        self._names = deque(plan.coming)
        self._ahead = self._fetched()

    @property
    def pending(self) -> bool:
        """Whether any is still to come."""
        return bool(self._names)

    @property
    def is_here(self) -> bool:
        """Whether the files of the next one are here, as far as they can be had."""
        return self._ahead is not None and self._ahead.is_over

    def next(self) -> list[Cell]:
        """Wait for the next one, and open it; that of the one after it begins to come. Raises StoreError."""
        assert self._ahead is not None
        with suppress(ClipevalError):  # opening it meets the same error, and says whose it is
            self._ahead.wait()
        name, guessed = self._names.popleft(), self._plan.expected
        self._ahead = self._fetched()
        cells = self._plan.arrived(name)
        for line in self._plan.news():
            self._progress.line(line)
        return self._journal.open(cells, guessed - self._plan.expected)

    def __iter__(self) -> Iterator[list[Cell]]:
        while self.pending:
            yield self.next()

    def _fetched(self) -> Ahead | None:
        if not self._names:
            return None
        files = self._plan.coming[self._names[0]]
        return Ahead(lambda: later.each([file.fetch for file in files], _FILES_AT_ONCE))

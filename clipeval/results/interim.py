"""The tables of a run that is not over: from time to time they are written anew, so that people can look at them."""

from __future__ import annotations

import time
from pathlib import Path

from clipeval.results import table
from clipeval.results.ledger import Ledger

_LARGEST_SHARE = 0.02
"""Of the time of a run."""


class Interim:
    """Writes the tables of ``ledger``. A killed run leaves those of some moment, or none, and each file whole."""

    def __init__(self, out: Path, ledger: Ledger) -> None:
        self._out, self._ledger = out, ledger
        self._not_before = 0.0

    def update(self) -> None:
        """Write them, unless the last time was so short ago that they would take more than their share of the run.
        Raises StoreError."""
        started = time.monotonic()
        if started < self._not_before:
            return
        table.write(self._out, table.current_rows(self._ledger), self._ledger.digest)
        ended = time.monotonic()
        self._not_before = ended + (ended - started) * (1 / _LARGEST_SHARE - 1)

"""The per-sample outcomes behind rows of the table: where they are, and what they say of a metric."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from clipeval.errors import StoreError
from clipeval.results import samples
from clipeval.results.ledger import Ledger, Row, measurement
from clipeval.stats.scored import NotPairedError, Scored, scored

if TYPE_CHECKING:
    import pandas as pd


def shelves_of(rows: pd.DataFrame) -> dict[str, Shelf]:
    """The shelf beside each table that rows come from, by their ``results_file``; none for tables without a ledger."""
    found = {}
    for word in map(str, rows["results_file"].unique()):
        folder = Path(word) if Path(word).is_dir() else Path(word).parent
        if (folder / "ledger.jsonl").is_file() and samples.are_in(folder):
            found[word] = Shelf(Ledger(folder))
    return found


def has_outcomes(shelves: dict[str, Shelf], row: Row) -> bool:
    """Whether the outcomes behind a row are on its shelf."""
    return row["results_file"] in shelves and shelves[row["results_file"]].has(row)


class Shelf:
    """The per-sample files of one results folder, found through its ledger; none where it has no ledger."""

    def __init__(self, ledger: Ledger) -> None:
        self._folder = ledger.path.parent
        self._cells = {key: record.cell for key, record in ledger.standing.items()}
        self._read = lru_cache(maxsize=2)(samples.read)  # the metrics of a cell share a file and follow each other

    def has(self, row: Row) -> bool:
        """Whether there is a file of the outcomes behind a row."""
        return self._file(row) is not None

    def frame(self, row: Row) -> pd.DataFrame:
        """The whole file. Raises StoreError where none is kept or it is broken."""
        file = self._file(row)
        if file is None:
            raise StoreError("there are no per-sample outcomes of it")
        return self._read(self._folder, file.stem)

    def scored(self, row: Row) -> Scored:
        """The outcomes behind the value of a row. Raises NotPairedError: none are kept, the file is broken, or it does
        not belong to the row."""
        try:
            frame = self.frame(row)
        except StoreError as error:
            raise NotPairedError(str(error)) from error
        return scored(str(row["metric"]), frame, float(row["value"]))

    def _file(self, row: Row) -> Path | None:
        cell = self._cells.get(measurement(row))
        file = samples.path(self._folder, cell) if cell else None
        return file if file is not None and file.exists() else None

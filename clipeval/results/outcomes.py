"""The per-sample outcomes behind rows of the table: where they are, and what they say of a metric."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from clipeval.errors import StoreError, UsageError, few, suggest
from clipeval.results import samples
from clipeval.results.columns import records, task_name
from clipeval.results.ledger import Ledger, Row, measurement
from clipeval.results.reading import named, read_tables
from clipeval.spelling import also
from clipeval.stats.scored import NotPairedError, Scored, scored

if TYPE_CHECKING:
    import pandas as pd

_CELL = ["model", "dataset", "task", "shots", "seed"]


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


@also(datasets="dataset", models="model")
def read_samples(
    results: str | Path | Sequence[str | Path],
    *,
    model: str | None = None,
    dataset: str | None = None,
    task: str | None = None,
) -> pd.DataFrame:
    """The outcome of every sample, of one results folder or several: one row per sample and cell.

    The first columns are ``model dataset task shots seed``, then those of the task: the sample's ``id``, and for
    instance ``label``, ``prediction`` and ``correct``. ``model``, ``dataset`` and ``task`` choose; without one of them
    all are there. Raises UsageError for a name that is not in the table, StoreError where no outcomes are kept or a
    file is broken.
    """
    import pandas as pd

    rows = read_tables([results] if isinstance(results, str | Path) else results)
    for column, name in (("model", model), ("dataset", dataset), ("task", task and task_name(task, rows))):
        if name is not None:
            there = sorted(rows[column].dropna().unique())
            if name not in there:
                raise UsageError(f"{named(results)}: no {column} '{name}'.{suggest(name, there)} It has {few(there)}.")
            rows = rows[rows[column] == name]
    shelves = shelves_of(rows) if "results_file" in rows else {}
    found: dict[Path, pd.DataFrame] = {}
    for row in records(rows):
        shelf = shelves.get(str(row.get("results_file")))
        file = shelf and shelf._file(row)
        if file and file not in found:
            frame = samples.read(file.parents[1], file.stem)
            found[file] = frame.assign(**{name: row[name] for name in _CELL if name not in frame})
    if not found:
        raise StoreError(
            f"{named(results)}: no per-sample outcomes of these are kept. They lie in the folder `samples` of what "
            "`clipeval run` writes."
        )
    joined = pd.concat(found.values(), ignore_index=True)
    return joined[[*_CELL, *(name for name in joined if name not in _CELL)]]

"""The per-sample outcomes behind rows of the table."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from clipeval.errors import StoreError
from clipeval.results import samples
from clipeval.results.ledger import Ledger
from clipeval.results.table import measurement, standing_cells

if TYPE_CHECKING:
    import pandas as pd

_DIRECTIONS = {"image_retrieval_recall": "text_to_image", "text_retrieval_recall": "image_to_text"}
_CORRECT = {"acc1": "correct", "acc5": "correct5", "text_acc": "text_correct", "image_acc": "image_correct"}
_AGREE = 1e-6


@dataclass(frozen=True)
class Outcomes:
    """The per-sample file of one cell in one results folder."""

    folder: Path
    cell: str

    @cached_property
    def frame(self) -> pd.DataFrame:
        """The whole file. Raises StoreError."""
        return samples.read(self.folder, self.cell)

    def hits(self, metric: str, value: float) -> pd.Series | None:
        """One 0/1 outcome per sample id, whose mean is ``value``; None where the file has none such, as of a metric
        that is not of this kind, or cannot be read."""
        name, _, k = metric.partition("@")
        try:
            frame = self.frame
        except StoreError:
            return None
        if direction := _DIRECTIONS.get(name):
            frame, column = frame[(frame["direction"] == direction).to_numpy(bool)], f"hit@{k}"
        else:
            column = _CORRECT.get(metric, "")
        if column not in frame:
            return None
        hits = frame.set_index(frame["id"].astype(str))[column].astype(np.float64)
        agrees = hits.isin([0.0, 1.0]).all() and abs(float(hits.mean()) - value) <= _AGREE
        return hits if agrees and hits.index.is_unique else None


class Shelf:
    """Finds outcomes: those of results folders with a ledger on this machine."""

    def __init__(self, rows: pd.DataFrame) -> None:
        self._cells: dict[str, tuple[Path, dict[tuple[Any, ...], str]]] = {}
        for word in rows["results_file"].unique():
            folder = Path(word) if Path(word).is_dir() else Path(word).parent
            if (folder / "ledger.jsonl").is_file():
                self._cells[str(word)] = folder, standing_cells(Ledger(folder))

    def find(self, row: dict[str, Any]) -> Outcomes | None:
        """The outcomes behind a row; None where none are kept."""
        folder, cells = self._cells.get(row["results_file"], (Path(), {}))
        cell = cells.get(measurement(row))
        return Outcomes(folder, cell) if cell and samples.path(folder, cell).is_file() else None

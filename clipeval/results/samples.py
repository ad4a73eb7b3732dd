"""Per-sample outcomes: one Parquet file per cell under ``OUT/samples``, keyed by stable sample ids."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from clipeval.errors import StoreError, first_line, foreign
from clipeval.files import write_atomically
from clipeval.results import bounded
from clipeval.results.schema import well_formed

if TYPE_CHECKING:
    import pandas as pd


MOST_ROWS = 20_000_000
"""More samples than any data set has."""


def path(out: Path, cell: str) -> Path:
    """Where the outcomes of one cell are."""
    return out / "samples" / f"{cell}.parquet"


def are_in(out: Path) -> bool:
    """Whether outcomes of any cell are kept."""
    return (out / "samples").is_dir()


def write(out: Path, cell: str, columns: dict[str, np.ndarray]) -> None:
    """Keep the outcomes of one cell. Raises StoreError."""
    import pandas as pd

    if columns:
        frame = pd.DataFrame({name: list(values) if values.ndim > 1 else values for name, values in columns.items()})
        for name in frame.columns[[kind.kind in "OU" for kind in frame.dtypes]]:
            frame[name] = [well_formed(value) if isinstance(value, str) else value for value in frame[name]]
        content: bytes = frame.to_parquet()  # by its path pyarrow writes no file in a folder whose name is not UTF-8

        def fill(file: Path) -> None:
            file.write_bytes(content)

        write_atomically(path(out, cell), fill)


def read(out: Path, cell: str) -> pd.DataFrame:
    """The outcomes of one cell. Raises StoreError when they are not there or broken."""
    file = path(out, cell)

    def told(error: Exception) -> StoreError:
        return StoreError(f"{file}: cannot read the per-sample outcomes: {first_line(error)}. Run the cell again.")

    with foreign(told):
        return bounded.parquet(file, MOST_ROWS)

"""``OUT/results.parquet`` and ``OUT/results.csv``: the same tidy rows, written from the ledger."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipeval.errors import UsageError
from clipeval.results.files import write_atomically
from clipeval.results.ledger import Ledger, Row
from clipeval.results.schema import COLUMNS, to_frame
from clipeval.results.suites import SuiteRequest, suite_rows

if TYPE_CHECKING:
    import pandas as pd

_ORDER = ("model", "dataset", "split", "task", "shots", "seed", "protocol", "precision", "limit")


def current_rows(ledger: Ledger) -> list[Row]:
    """The rows that stand: of each measurement the newest, a failure never in place of a value, then suite rows.

    The order does not depend on the order in which cells finished.
    """
    newest: dict[tuple[Any, ...], list[Row]] = {}
    for rows in ledger.cells.values():
        key = tuple(rows[0].get(name) for name in _ORDER) if rows else ()
        if key in newest and _is_failure(rows) and not _is_failure(newest[key]):
            continue
        newest[key] = rows
    measured = [row for key in sorted(newest, key=_sort_key) for row in newest[key]]
    averages = [row for suite in ledger.suites for row in suite_rows(SuiteRequest.from_json(suite), measured)]
    averages.sort(key=lambda row: _sort_key((row["dataset"], row["metric"], *(row.get(name) for name in _ORDER))))
    return measured + averages


def _is_failure(rows: list[Row]) -> bool:
    return all(row["status"] == "failed" for row in rows)


def _sort_key(key: tuple[Any, ...]) -> tuple[tuple[bool, str], ...]:
    return tuple((part is None, f"{part:012d}" if isinstance(part, int) else str(part)) for part in key)


def write(out: Path, rows: list[Row]) -> pd.DataFrame:
    """Write both files and return the table. Raises StoreError."""
    frame = to_frame(rows)
    write_frame(out, frame)
    return frame


def write_frame(out: Path, frame: pd.DataFrame) -> None:
    """Write a table as ``results.parquet`` and ``results.csv``. Raises StoreError."""
    write_atomically(out / "results.parquet", lambda path: frame.to_parquet(path, index=False))
    write_atomically(out / "results.csv", lambda path: frame.to_csv(path, index=False))


def read_results(path: str | Path) -> pd.DataFrame:
    """A tidy table from a results folder, a ``.parquet`` or a ``.csv`` file.

    Columns that the file lacks are there and empty; columns it has beyond the schema are kept. Raises UsageError when
    there is no such table.
    """
    import pandas as pd

    path = Path(path)
    file = path / "results.parquet" if path.is_dir() else path
    try:
        frame = pd.read_parquet(file) if file.suffix == ".parquet" else pd.read_csv(file, low_memory=False)
    except FileNotFoundError:
        raise UsageError(f"{file}: no results table here. Write one with: clipeval run -o {path}") from None
    except (OSError, ValueError) as error:
        raise UsageError(f"{file}: not a readable results table: {error}.") from error
    extra = [name for name in frame.columns if name not in COLUMNS]
    records: list[Any] = frame.astype(object).where(frame.notna(), None).to_dict("records")
    typed = to_frame(records)
    return typed.assign(**{name: frame[name].to_numpy() for name in extra})

"""``OUT/results.parquet`` and ``OUT/results.csv``: the same tidy rows, written from the ledger."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from clipeval.files import write_atomically
from clipeval.results.ledger import Ledger, Row
from clipeval.results.schema import to_frame
from clipeval.results.suites import SuiteRequest, suite_rows

if TYPE_CHECKING:
    import pandas as pd

_ORDER = ("model", "dataset", "split", "task", "shots", "seed", "protocol", "precision", "limit")


def current_rows(ledger: Ledger) -> list[Row]:
    """The rows that stand: of each measurement the newest, a failure never in place of a value, then suite rows.

    The order does not depend on the order in which cells finished.
    """
    cells = standing_cells(ledger)
    measured = [row for key in sorted(cells, key=_sort_key) for row in ledger.cells[cells[key]]]
    averages = [row for suite in ledger.suites for row in suite_rows(SuiteRequest.from_json(suite), measured)]
    averages.sort(key=lambda row: _sort_key((row["dataset"], row["metric"], *(row.get(name) for name in _ORDER))))
    return measured + averages


def standing_cells(ledger: Ledger) -> dict[tuple[Any, ...], str]:
    """The ledger's cell behind each ``measurement`` of the table."""
    newest: dict[tuple[Any, ...], str] = {}
    for cell, rows in ledger.cells.items():
        key = measurement(rows[0]) if rows else ()
        if key in newest and _is_failure(rows) and not _is_failure(ledger.cells[newest[key]]):
            continue
        newest[key] = cell
    return newest


def measurement(row: Row) -> tuple[Any, ...]:
    """What tells a row's cell from the other cells of a table: checkpoint, data and task with its parameters."""
    return tuple(row.get(name) for name in _ORDER)


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
    write_atomically(out / "results.csv", lambda path: write_csv(frame, path))


def write_csv(frame: pd.DataFrame, path: Path) -> None:
    """Write a table as CSV in which no text is a formula for a spreadsheet.

    An apostrophe goes before a cell or column name that begins with one of ``= + - @``, a tab or a line break;
    ``reading.read_results`` takes it away again.
    """
    texts = {name: frame[name].map(_quoted, na_action="ignore") for name in _text_columns(frame)}
    lone_return = any("\r" in str(text) for column in texts.values() for text in column)
    # the minimum would leave a carriage return outside quotes, where it ends a line
    quoting: Literal[0, 2] = csv.QUOTE_NONNUMERIC if lone_return else csv.QUOTE_MINIMAL
    frame.assign(**texts).rename(columns=_quoted).to_csv(path, index=False, quoting=quoting)


_FORMULA = re.compile(r"'*[=+\-@\t\r\n]")


def _quoted(text: Any) -> Any:
    return f"'{text}" if isinstance(text, str) and _FORMULA.match(text) else text


def unquoted(text: Any) -> Any:
    """The inverse of what ``write_csv`` does to a text."""
    return text[1:] if isinstance(text, str) and text.startswith("'") and _FORMULA.match(text) else text


def _text_columns(frame: pd.DataFrame) -> list[str]:
    return [name for name in frame.columns if frame[name].dtype.kind == "O" or frame[name].dtype == "string"]

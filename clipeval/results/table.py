"""``OUT/results.parquet`` and ``OUT/results.csv``: the same tidy rows, written from the ledger."""

from __future__ import annotations

import csv
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from clipeval.console import say
from clipeval.files import require_own, write_atomically
from clipeval.plain import quoted
from clipeval.results.ledger import Ledger, Row, digest_of, is_foreign, measurement
from clipeval.results.schema import COLUMNS, to_frame
from clipeval.results.suites import SuiteRequest, suite_rows

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

_TABLES = ("results.parquet", "results.csv")
_FIRST_COLUMNS = list(COLUMNS)[: list(COLUMNS).index("reference") + 1]
"""Those of the first version of the table."""
_STAMP = b"clipeval.ledger"
"""Key of the Parquet file's metadata: the digest of the ledger that the table was written from."""


def current_rows(ledger: Ledger) -> list[Row]:
    """The rows that stand, with what is known of their checkpoints, then suite rows.

    The order does not depend on the order in which cells finished.
    """
    records = ledger.standing
    measured = [ledger.described(row) for key in sorted(records, key=_sort_key) for row in records[key].rows]
    averages = [row for suite in ledger.suites for row in suite_rows(SuiteRequest.from_json(suite), measured)]
    averages.sort(key=lambda row: _sort_key((row["dataset"], row["metric"], *measurement(row))))
    return measured + averages


def _sort_key(key: tuple[Any, ...]) -> tuple[tuple[bool, str], ...]:
    return tuple((part is None, f"{part:012d}" if isinstance(part, int) else str(part)) for part in key)


def current(path: Path) -> pd.DataFrame | None:
    """The table at ``path``, a results folder or the table in it, made anew from the ledger where it is not the one
    that was written from this ledger, and says so; else None, and the file says the truth.

    A run that is killed leaves such a table, and so does a program that changes it. A table without a digest is left
    alone beside a ledger of an earlier version, which knew none.
    Raises StoreError for a ledger that cannot be read.
    """
    folder = path if path.is_dir() else path.parent
    files = [folder / name for name in _TABLES]
    there = [file for file in files if file.exists()]
    if path != folder and path not in there:
        return None
    digest, stamp = digest_of(folder), _stamp(files[0])
    if digest is None or stamp == digest:
        return None
    ledger = Ledger(folder)
    if not ledger.records or (there and stamp is None and not ledger.sealed):
        return None
    why = "was not written from this ledger" if there else "is missing"
    say(f"{folder}: the table {why} (a run was cut off, or another program wrote it): read from the ledger.")
    return to_frame(current_rows(ledger))


def _stamp(file: Path) -> str | None:
    """The digest of the ledger that a table was written from, None where it does not say."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        if not file.is_file():
            return None
        with file.open("rb") as opened:
            metadata = pq.read_schema(opened).metadata
    except (OSError, pa.ArrowException):
        return None
    return (metadata or {}).get(_STAMP, b"").decode("ascii", "replace") or None


def refuse_foreign(out: Path) -> None:
    """Raises UsageError where the results folder ``out`` has a table that no run wrote, which is one without a ledger,
    or the ledger of another program."""
    require_own(out, ("ledger.jsonl",), lambda: not is_foreign(out), "a run")
    require_own(out, _TABLES, lambda: digest_of(out) is not None or _rows_of_ours(out / _TABLES[0]) == 0, "a run")


def refuse_foreign_import(out: Path) -> None:
    """Raises UsageError where ``out`` has a table that no import wrote."""

    def own() -> bool:
        return _rows_of_ours(out / _TABLES[0]) is not None and digest_of(out) is None

    require_own(out, (*_TABLES, "ledger.jsonl"), own, "an earlier import")


def _rows_of_ours(file: Path) -> int | None:
    """The number of rows of a Parquet file with all columns of a results table; None for any other."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        if not file.is_file():
            return None
        with file.open("rb") as opened:
            metadata = pq.read_metadata(opened)
    except (OSError, pa.ArrowException):
        return None
    if not set(_FIRST_COLUMNS) <= set(metadata.schema.to_arrow_schema().names):
        return None
    return int(metadata.num_rows)


def write(out: Path, rows: list[Row], ledger_digest: str | None = None) -> pd.DataFrame:
    """Write both files and return the table; see ``write_frame``."""
    frame = to_frame(rows)
    write_frame(out, frame, ledger_digest)
    return frame


def write_frame(out: Path, frame: pd.DataFrame, ledger_digest: str | None = None) -> None:
    """Write a table as ``results.parquet`` and ``results.csv``. Raises StoreError.

    ``ledger_digest`` is that of the ledger it was made from, by default of the one in ``out``. It is kept in the
    Parquet file, which is written last: where only one file could be written, readers of either see that it is not the
    table of this ledger.
    """
    import pyarrow as pa

    content = pa.Table.from_pandas(frame, preserve_index=False)
    if digest := ledger_digest or digest_of(out):
        content = content.replace_schema_metadata({**(content.schema.metadata or {}), _STAMP: digest})
    writers = {"results.csv": partial(write_csv, frame), "results.parquet": partial(_write_parquet, content)}
    # without a ledger it is the Parquet file that says whose the table is (refuse_foreign_import)
    for name in writers if digest else reversed(writers):
        write_atomically(out / name, writers[name])


def _write_parquet(content: pa.Table, path: Path) -> None:
    """By its path pyarrow writes no file in a folder whose name is not UTF-8."""
    import pyarrow.parquet as pq

    with path.open("wb") as file:
        pq.write_table(content, file)


def write_csv(frame: pd.DataFrame, path: Path) -> None:
    """Write a table as CSV in which no text is a formula for a spreadsheet.

    An apostrophe goes before a cell or column name that begins with one of ``= + - @``, a tab or a line break;
    ``reading.read_results`` takes it away again.
    """
    texts, lone_return = {}, False
    for name in _text_columns(frame):
        column = frame[name]
        cells = column if column.dtype == object else column.unique()  # of objects not all have an order or a hash
        distinct = {cell for cell in cells if isinstance(cell, str)}
        lone_return |= any("\r" in text for text in distinct)
        if any(quoted(text) is not text for text in distinct):
            texts[name] = frame[name].map(quoted, na_action="ignore")
    # the minimum would leave a carriage return outside quotes, where it ends a line
    quoting: Literal[0, 2] = csv.QUOTE_NONNUMERIC if lone_return else csv.QUOTE_MINIMAL
    frame.assign(**texts).rename(columns=quoted).to_csv(path, index=False, quoting=quoting)


def _text_columns(frame: pd.DataFrame) -> list[str]:
    return [name for name in frame.columns if frame[name].dtype.kind == "O" or frame[name].dtype == "string"]

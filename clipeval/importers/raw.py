"""A raw result file: its records, and values read from them with errors that name the place."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipeval import vocabulary
from clipeval.errors import UsageError, first_line, foreign
from clipeval.results import bounded
from clipeval.results.columns import records
from clipeval.results.header import header, left_out, nameless
from clipeval.results.ledger import Row
from clipeval.results.reading import read_results


@dataclass(frozen=True, eq=False)
class RawFile:
    """The records of one file: the lines of a CSV below its header, or the objects of a JSON document."""

    path: Path
    records: list[dict[str, Any]]
    columns: tuple[str, ...]
    is_csv: bool
    notes: tuple[str, ...] = ()
    """What was left out of it."""

    def where(self, index: int) -> str:
        """The place of a record in its file, as a user would look for it."""
        return f"{self.path}: line {index + 2}" if self.is_csv else f"{self.path}: record {index}"

    def text(self, index: int, column: str) -> str:
        """The text of a cell. Raises UsageError when it is empty or not there."""
        value = self.records[index].get(column)
        if value is None or str(value).strip() == "":
            raise UsageError(f"{self.where(index)}: column '{column}' is empty. Every record needs it.")
        return str(value).strip()

    def number(self, index: int, column: str) -> float:
        """The number in a cell; NaN for an empty one. Raises UsageError when it is not a number."""
        value = self.records[index].get(column)
        if value is None or value == "":
            return math.nan
        try:
            if isinstance(value, bool):
                raise ValueError
            return float(value)
        except (TypeError, ValueError, OverflowError):
            raise UsageError(f"{self.where(index)}: column '{column}': {value!r:.60} is not a number.") from None

    def positive(self, index: int, column: str) -> float:
        """A number above 0. Raises UsageError for any other and for an empty cell."""
        value = self.number(index, column)
        if not (0 < value < math.inf):
            raise UsageError(f"{self.where(index)}: column '{column}': expected a number above 0, found {value:g}.")
        return value

    def count(self, index: int, column: str) -> int:
        """A whole number. Raises UsageError for any other and for an empty cell."""
        value = self.number(index, column)
        if not value.is_integer():  # NaN is none either
            raise UsageError(f"{self.where(index)}: column '{column}': expected a whole number, found {value:g}.")
        return int(value)

    def metrics(self, index: int, columns: Mapping[str, str]) -> dict[str, float]:
        """The values of a record by column; ``columns`` maps columns to metrics, empty cells have no value.

        Raises UsageError for a record without any value, for NaN (but for acc5, which is NaN where a data set has fewer
        than six classes) and for a share outside [0, 1].
        """
        found = {}
        for column, metric in columns.items():
            value = self.number(index, column)
            if math.isnan(value):
                if self.records[index].get(column) in (None, "") or metric == "acc5":
                    continue
                raise UsageError(f"{self.where(index)}: column '{column}': the value is NaN. Measure it again.")
            wrong = vocabulary.not_a_share(metric, value) or (f"{metric} is infinite." if math.isinf(value) else "")
            if wrong:
                raise UsageError(f"{self.where(index)}: column '{column}': {wrong}")
            found[column] = value
        if not found:
            raise UsageError(f"{self.where(index)}: no metric has a value; looked for {', '.join(columns)}.")
        return found


@dataclass(frozen=True)
class Format:
    """A raw format. ``matches`` tells it by its content; ``rows`` gets all files of the format and all other files of
    the call, among which it looks for the ones it joins, and returns the rows and what is to be said about them."""

    name: str
    matches: Callable[[RawFile], bool]
    rows: Callable[[Sequence[RawFile], Sequence[RawFile]], tuple[list[Row], list[str]]]
    companions: tuple[str, ...] = ()
    """Names of files that are looked for beside one of this format."""


def read(path: Path) -> RawFile:
    """A CSV or JSON file, told apart by content, a ``.parquet`` or a results folder. Raises UsageError."""
    with contextlib.suppress(OSError):  # a name too long for a folder is too long for a file
        path = path / "results.parquet" if path.is_dir() else path
    if path.suffix == ".parquet":
        frame = read_results(path)
        return RawFile(path, records(frame), tuple(frame.columns[frame.notna().any()]), is_csv=False)

    def told(error: Exception) -> UsageError:
        reason = getattr(error, "strerror", None) or first_line(error)
        if isinstance(error, UnicodeDecodeError):
            reason = "it is neither a table nor UTF-8 text"
        return UsageError(f"{path}: cannot read it: {reason}.")

    with foreign(told):
        data = bounded.content(path)
        names = [] if data.lstrip()[:1] in (b"[", b"{") else header(data)
        text = io.TextIOWrapper(io.BytesIO(data), "utf-8-sig").read()
    if not text.strip():
        raise UsageError(f"{path}: the file is empty.")
    return _json(path, text) if text.lstrip()[0] in "[{" else _csv(path, text, nameless(names))


def _csv(path: Path, text: str, places: list[int]) -> RawFile:
    reader = csv.DictReader(io.StringIO(text), strict=True)
    records = []
    try:
        for index, record in enumerate(reader):
            if None in record or None in record.values():
                n_columns = len(reader.fieldnames or ())
                raise UsageError(f"{path}: line {index + 2}: it has not the {n_columns} columns of the header.")
            records.append(record)
    except csv.Error as error:
        raise UsageError(f"{path}: line {reader.line_num}: not a valid CSV file: {error}.") from error
    columns = reader.fieldnames or []
    unnamed = {columns[place] for place in places}
    named = [{name: cell for name, cell in record.items() if name not in unnamed} for record in records]
    notes = (f"{path}: {left_out(places)}",) if places else ()
    return RawFile(path, named, tuple(name for name in columns if name not in unnamed), is_csv=True, notes=notes)


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"the key '{twice:.60}' is there twice")
    return dict(pairs)


def _json(path: Path, text: str) -> RawFile:
    try:
        document = json.loads(text, object_pairs_hook=_without_repetition)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: not a valid JSON file: {error}.") from error
    records = document if isinstance(document, list) else [document]
    for index, record in enumerate(records):
        if not isinstance(record, dict):
            raise UsageError(f"{path}: record {index}: expected an object, found {type(record).__name__}.")
    columns = tuple(dict.fromkeys(key for record in records for key in record))
    return RawFile(path, records, columns, is_csv=False)

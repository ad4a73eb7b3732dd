"""``clipeval import``: published and foreign result files as one tidy table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from clipeval import vocabulary
from clipeval.errors import UsageError
from clipeval.importers import cherti2023, clip_benchmark, hygiene, open_clip, probes, raw
from clipeval.importers.raw import Format, RawFile
from clipeval.paths import expand
from clipeval.results.ledger import Row
from clipeval.results.reading import read_results
from clipeval.results.schema import COLUMNS, COUNT, NUMBER, to_frame

if TYPE_CHECKING:
    import pandas as pd

FORMATS: tuple[Format, ...] = (*cherti2023.FORMATS, *probes.FORMATS, *open_clip.FORMATS, *clip_benchmark.FORMATS)
TIDY = "a tidy table (CSV or Parquet) with the columns model, dataset, task, metric, value"
_TIDY_COLUMNS = ("model", "dataset", "task", "metric", "value")
_WITHOUT_VALUE = ("skipped", "failed", "error")


@dataclass(frozen=True)
class Imported:
    """The tidy table of the files, and what a reader of it should know, one sentence each."""

    frame: pd.DataFrame
    notes: tuple[str, ...]


def import_files(paths: Sequence[Path]) -> Imported:
    """Read result files of any of ``FORMATS``, told by their content, and tidy tables into one table.

    Files that results are joined with (``arch_info.csv``, ``trained_models_info.csv``) are taken from ``paths`` or from
    beside the results. Values are fractions as in the files; one that is given twice is kept once. A column says
    which rows a from-scratch fit leaves out. Rows of tidy tables stay as they are, with the columns of their own.
    Raises UsageError that names file, line and column.
    """
    import pandas as pd

    files = [raw.read(expand(path)) for path in paths]
    tidy = [file for file in files if set(_TIDY_COLUMNS) <= set(file.columns)]
    foreign = [file for file in files if file not in tidy]
    rows, notes = _rows(foreign)
    notes = [note for file in foreign for note in file.notes] + notes
    tables = [to_frame(rows)] if rows else []
    tables += [_tidy(file) for file in tidy]
    if not tables or not sum(map(len, tables)):
        raise UsageError(f"{', '.join(map(str, paths))}: there are no results in this.{_known()}")
    return Imported(pd.concat(tables, ignore_index=True), tuple(notes))


def _rows(files: list[RawFile]) -> tuple[list[Row], list[str]]:
    of_format: dict[str, list[RawFile]] = {}
    for file in files:
        of_format.setdefault(_format(file), []).append(file)
    joined = of_format.get("", [])
    rows: list[Row] = []
    notes: list[str] = []
    for kind in FORMATS:
        if group := of_format.get(kind.name):
            found, said = kind.rows(group, joined + _beside(group, kind.companions, joined))
            rows += found
            notes += said
    rows, repeated = hygiene.once(rows)
    rows, duplicates = hygiene.mark_duplicates(rows)
    rows = [{"status": "ok", "higher_is_better": vocabulary.metric(row["metric"]).share or None} | row for row in rows]
    return rows, [*notes, *repeated, *duplicates, *hygiene.remarks(rows)]


def _format(file: RawFile) -> str:
    """The name of a file's format; empty for a file that holds no results but is joined with them."""
    if cherti2023.is_arch_info(file) or cherti2023.is_runs_info(file):
        return ""
    found = next((kind.name for kind in FORMATS if kind.matches(file)), None)
    if found is None:
        columns = ", ".join(file.columns[:6]) or "none"
        raise UsageError(f"{file.path}: not a result file that clipeval knows (its columns: {columns}).{_known()}")
    return found


def _known() -> str:
    return " Known are: " + "; ".join([*(kind.name for kind in FORMATS), TIDY]) + "."


def _beside(group: list[RawFile], names: Sequence[str], given: list[RawFile]) -> list[RawFile]:
    """Files of these names beside the results, but for those of a name that was given."""
    missing = set(names) - {file.path.name for file in given}
    paths = {file.path.parent / name for file in group for name in missing}
    return [raw.read(path) for path in sorted(paths) if path.is_file()]


def _tidy(file: RawFile) -> pd.DataFrame:
    """A tidy table as it is. Raises UsageError for a cell that is empty, is no number or lies outside [0, 1]."""
    checks = {NUMBER: file.number, COUNT: file.count}
    typed = [(column, checks[COLUMNS[column]]) for column in file.columns if COLUMNS.get(column) in checks]
    for index, record in enumerate(file.records):
        for column in _TIDY_COLUMNS[:-1]:
            file.text(index, column)
        for column, check in typed:
            if record.get(column) not in (None, ""):
                check(index, column)
        if record.get("status") not in _WITHOUT_VALUE:
            file.metrics(index, {"value": file.text(index, "metric")})
    return read_results(file.path)

"""Results tables from files, results folders and published studies. A file may be anybody's: what is read is bounded,
and a cell of another type than its column is named."""

from __future__ import annotations

import io
import re
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeGuard, Union

import numpy as np

from clipeval import vocabulary
from clipeval.console import say
from clipeval.errors import UsageError, few, first_line, foreign, suggest
from clipeval.paths import exists, expand, readable, with_home
from clipeval.plain import unquoted
from clipeval.results import bounded
from clipeval.results.header import header, left_out, nameless
from clipeval.results.schema import COLUMNS, NUMBER, TEXT, WITH_VALUE
from clipeval.results.studies import STUDIES, study
from clipeval.results.table import current

if TYPE_CHECKING:
    import pandas as pd

Results: TypeAlias = Union["pd.DataFrame", str, Path, "Sequence[pd.DataFrame | str | Path]"]
"""What every function takes for a results table: a DataFrame, a results folder, a ``.parquet`` or ``.csv`` file, the
name of a published study, or a list of these, which are joined."""

MOST_ROWS = 1_000_000
"""More than any results are: a thousand checkpoints on forty data sets have some 200,000."""
_NESTED = (list, dict, tuple, set, np.ndarray)


def read_results(results: Results) -> pd.DataFrame:
    """The tidy table of a results folder, a ``.parquet`` or a ``.csv`` file, a published study (``open_clip``), a
    DataFrame, or several of these; made anew from the folder's ledger where the file is not the table of that ledger
    (``table.current``).

    Columns that the file lacks are there and empty; columns it has beyond the schema are kept. Of several the column
    ``results_file`` says which. Raises UsageError when there is no such table, for one that is larger than any results
    are, for a cell of another type than its column, and for a share outside [0, 1].
    """
    if isinstance(results, str | Path):
        word = with_home(str(results))
        return study(word) if _is_study(word) else _read(expand(results))
    if is_table(results):
        return typed(results)
    return typed(read_tables(results))


def read_tables(results: Results) -> pd.DataFrame:
    """One table of all that is given. A DataFrame by itself stays as it is; of files the column ``results_file`` says
    which. Raises UsageError as ``read_results`` does."""
    import pandas as pd

    if is_table(results):
        return results
    given = [results] if isinstance(results, str | Path) else list(results)
    if not given:
        raise UsageError("no results given: name a results folder, a table, or a published study such as open_clip.")
    return pd.concat([_frame(one) if is_table(one) else _study_or_file(with_home(str(one))) for one in given])


def is_table(results: object) -> TypeGuard[pd.DataFrame]:
    """Whether results are a DataFrame and not the name of a place."""
    return hasattr(results, "columns")


def named(results: Results) -> str:
    """What results are called in messages."""
    if isinstance(results, str | Path):
        return str(results)
    return "table" if is_table(results) else ", ".join("table" if is_table(one) else str(one) for one in results)


def _read(path: Path) -> pd.DataFrame:
    if exists(path) and (made_anew := current(path)) is not None:
        return made_anew
    file = _file(path)
    with foreign(lambda error: UsageError(f"{file}: not a readable results table: {first_line(error)}.")):
        frame = bounded.parquet(file, MOST_ROWS) if file.suffix == ".parquet" else _read_csv(file)
    return typed(frame, str(file))


def typed(frame: pd.DataFrame, name: str = "table") -> pd.DataFrame:
    """``frame`` with the columns of the schema in their types and order, then its other columns. Raises UsageError that
    names row and column of a cell that does not fit, and of a share outside [0, 1]."""
    import pandas as pd

    columns = [str(column) for column in frame.columns]
    if len(set(columns)) < len(columns):
        repeated = next(column for column in columns if columns.count(column) > 1)
        raise UsageError(f"{name}: not a readable results table: it has two columns '{repeated}'.")
    frame = frame.set_axis(columns, axis=1).reset_index(drop=True)
    found = {
        column: _typed(frame[column], kind, name) if column in frame else pd.Series(None, index=frame.index, dtype=kind)
        for column, kind in COLUMNS.items()
    }
    others = {column: _flat(frame[column], name) for column in columns if column not in COLUMNS}
    _require_shares(found, name)
    return pd.DataFrame(found | others, index=frame.index)


def _require_shares(columns: dict[str, pd.Series], name: str) -> None:
    measured = (columns["status"].isna() | columns["status"].isin(WITH_VALUE)).to_numpy(bool)
    for column in ("value", "ci_low", "ci_high"):
        values = columns[column].to_numpy(np.float64)
        for row in np.flatnonzero(measured & np.isfinite(values) & ((values < 0) | (values > 1))):
            metric = columns["metric"].iloc[row]
            if isinstance(metric, str) and (wrong := vocabulary.not_a_share(metric, float(values[row]))):
                what = ", ".join(str(columns[key].iloc[row]) for key in ("model", "dataset"))
                raise UsageError(f"{name}: row {row + 1} ({what}), column {column}: {wrong}")


def _is_study(word: str) -> bool:
    return word in STUDIES and not exists(Path(word))


def _frame(given: pd.DataFrame) -> pd.DataFrame:
    frame = typed(given)
    return frame if "results_file" in frame else frame.assign(results_file="DataFrame")


def _study_or_file(word: str) -> pd.DataFrame:
    if _is_study(word):
        return study(word)
    if "/" not in word and not Path(word).suffix and not exists(Path(word)):
        raise UsageError(
            f"{word}: no such file or folder, and not a published study ({', '.join(STUDIES)}).{suggest(word, STUDIES)}"
        )
    return _read(expand(word)).assign(results_file=readable(word))


def _file(path: Path) -> Path:
    """The file of the table at ``path``. Raises UsageError for what is no regular file: pipes and devices never end."""
    for file in (path, path / "results.parquet"):
        try:
            mode = file.stat().st_mode
        except (FileNotFoundError, NotADirectoryError):
            raise UsageError(
                f"{file}: no results table here.{suggest(str(path), STUDIES)} Write one with: clipeval run -o {path}"
            ) from None
        except (OSError, ValueError) as error:
            raise UsageError(f"{file}: cannot read it: {getattr(error, 'strerror', None) or error}.") from error
        if stat.S_ISREG(mode):
            return file
        if not stat.S_ISDIR(mode):
            break
    raise UsageError(f"{file}: not a file. A results table is a .parquet or a .csv file, or a folder that has one.")


def _read_csv(file: Path) -> pd.DataFrame:
    import pandas as pd

    data = bounded.content(file)
    names = header(data)
    bounded.require_size(columns=len(names))
    as_written = {name: str for name, kind in COLUMNS.items() if kind == TEXT}  # 007 is a name, not 7
    frame = pd.read_csv(io.BytesIO(data), low_memory=False, dtype=as_written, nrows=MOST_ROWS + 1)
    bounded.require_size(len(frame), MOST_ROWS)
    if not isinstance(frame.index, pd.RangeIndex):
        raise ValueError(f"its rows have more cells than its header ({few(names)})")
    if places := nameless(names):
        say(f"{file}: {left_out(places)}.")
        frame = frame.drop(columns=frame.columns[places])
    for name in frame.select_dtypes(["object", "string"]):
        frame[name] = frame[name].map(unquoted, na_action="ignore")
    return frame.rename(columns=unquoted)


def _typed(values: pd.Series, kind: str, name: str) -> pd.Series:
    try:
        return _as(values, kind)
    except (TypeError, ValueError, ArithmeticError):
        row = _first_wrong(values.astype(object), kind)
    cell = values.iloc[row]
    shown = f"{getattr(cell, 'item', lambda: cell)()!r:.60} is not of type {kind}"
    if isinstance(cell, str) and re.fullmatch(r"\s*[-+]?\d+,\d+\s*", cell):
        shown += ": write numbers with a point, not a comma"
    raise UsageError(f"{name}: not a readable results table: row {row + 1}, column {values.name}: {shown}.")


def _as(values: pd.Series, kind: str) -> pd.Series:
    """``values`` as ``kind``. Raises TypeError, ValueError or ArithmeticError where one cannot be."""
    import pandas as pd

    if values.dtype == kind and kind != TEXT:
        return values
    if isinstance(values.dtype, pd.CategoricalDtype):  # few distinct values, and long ones are not copied
        distinct = np.array([*_as(pd.Series(values.cat.categories), kind), None], dtype=object)
        each = distinct[values.cat.codes.to_numpy()]  # the code of what is missing is -1
        return pd.Series(each, index=values.index, dtype=kind)  # type: ignore[call-overload, no-any-return]
    if kind == NUMBER and values.dtype.kind in "iuf":
        return values.astype(np.float64)
    plain = values.astype(object).where(values.notna(), None)
    if kind == TEXT:
        plain = plain.map(_text)
    return pd.Series(plain.to_numpy(object), index=values.index, dtype=kind)  # type: ignore[call-overload, no-any-return]


def _text(value: Any) -> str | None:
    if isinstance(value, (*_NESTED, bytes)):
        raise TypeError
    return None if value is None or value == "" else str(value)


def _first_wrong(values: pd.Series, kind: str) -> int:
    """The place of the first value that is not of a type, by halves: there may be millions."""
    low, high = 0, len(values)
    while high - low > 1:
        middle = (low + high) // 2
        try:
            _as(values.iloc[low:middle], kind)
            low = middle
        except (TypeError, ValueError, ArithmeticError):
            high = middle
    return low


def _flat(values: pd.Series, name: str) -> pd.Series:
    """A column of the table's own: anything but values that hold others, which nothing can be grouped by."""
    import pandas as pd

    if isinstance(values.dtype, pd.CategoricalDtype):
        return values.astype(object)
    if values.dtype == object:
        for row, value in enumerate(values):
            if isinstance(value, _NESTED):
                raise UsageError(
                    f"{name}: not a readable results table: row {row + 1}, column {values.name}: a cell is a number, "
                    f"text or a flag, not a {type(value).__name__}."
                )
    return values

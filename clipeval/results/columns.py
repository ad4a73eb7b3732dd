"""Numbers out of a results table: the scales and errors that laws are fitted to. A wrong value names its row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from clipeval import vocabulary
from clipeval.errors import MeasureError, UsageError
from clipeval.results.ledger import Row
from clipeval.results.mixture import PREFIX as MIX
from clipeval.tasks import canonical_name

if TYPE_CHECKING:
    import pandas as pd

COMPUTE = "gmacs_total"
SATURATED = "a value of 1 counts as half a sample wrong of n + 1"


def records(rows: pd.DataFrame) -> list[Row]:
    """The rows as plain values; None where one is missing."""
    columns = [_cells(rows[name]) for name in rows]
    names = [str(name) for name in rows]
    return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]


def _cells(column: pd.Series) -> list[Any]:
    if column.dtype == "string":  # most stand in many rows: each is made once
        place, texts = column.factorize()
        return list(np.array([*texts, None], dtype=object)[place])
    if isinstance(column.dtype, np.dtype) and column.dtype.kind == "f":
        return [None if value != value else value for value in column.tolist()]
    return column.astype(object).where(column.notna(), None).tolist()


def task_name(word: str, table: pd.DataFrame) -> str:
    """The name in the column ``task`` that a word stands for: that of a task there, or of one of ours by either name.
    Raises UsageError."""
    return word if table["task"].isin([word]).any() else canonical_name(word)


def numbers(rows: pd.DataFrame, column: str) -> np.ndarray:
    """A column as float64 ``[rows]``, missing values as NaN. Raises MeasureError where a value is not a number."""
    import pandas as pd

    values = pd.to_numeric(rows[column], errors="coerce").to_numpy(np.float64, na_value=np.nan)
    refuse(rows, np.isnan(values) & rows[column].notna().to_numpy(bool), f"{column} is not a number", column)
    return values


def scales(rows: pd.DataFrame, columns: Sequence[str]) -> np.ndarray:
    """``[rows, columns]`` positive numbers. Raises UsageError for an empty column, MeasureError naming a row."""
    found = []
    for column in columns:
        values = compute(rows) if column == COMPUTE else numbers(rows, column)
        if np.isnan(values).all():
            raise UsageError(f"--x {column}: the column is empty in all {len(rows)} rows that match.")
        name = f"{column} (gmacs x samples_seen)" if column == COMPUTE else column
        refuse(rows, np.isnan(values), f"{name} is missing")
        refuse(rows, (values <= 0) | np.isinf(values), f"{name} is not positive and finite")
        found.append(values)
    return np.stack(found, axis=1)


def compute(rows: pd.DataFrame) -> np.ndarray:
    """Total compute in GMACs ``[rows]``: ``gmacs_total``, or gmacs x samples_seen where that is not given."""
    given = numbers(rows, COMPUTE) if COMPUTE in rows else np.full(len(rows), np.nan)
    if not {"gmacs", "samples_seen"} <= set(rows.columns):
        return given
    gmacs, samples = numbers(rows, "gmacs"), numbers(rows, "samples_seen")
    refuse(rows, gmacs < 0, "gmacs is negative", "gmacs")
    refuse(rows, samples < 0, "samples_seen is negative", "samples_seen")
    with np.errstate(over="ignore"):  # infinite: refused where it is used
        return np.where(np.isnan(given), gmacs * samples, given)


def are_losses(rows: pd.DataFrame) -> np.ndarray:
    """Which rows ``[rows]`` are of a metric that is better when lower: as they say, else as the metric is known."""
    known = rows["metric"].map({name: vocabulary.metric(str(name)).lower for name in rows["metric"].unique()})
    if "higher_is_better" in rows:
        said = rows["higher_is_better"].astype("boolean")
        known = (~said).fillna(known.astype("boolean"))
    return known.to_numpy(bool)


def errors(rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """What laws are fitted to: 1 - value, in (0, 1], or a loss itself, any positive number; and what is amiss of each.

    Two arrays ``[rows]``. A share of 1 on a known number n of samples leaves an error of 0, of which there is no
    logarithm: it counts as 1/2 wrong of n + 1 (Anscombe 1948, Biometrika 35:246), which ``SATURATED`` says. For others
    that have no logarithm, and for missing values, the error is NaN. Raises MeasureError naming a row whose share is
    outside [0, 1].
    """
    values, losses = numbers(rows, "value"), are_losses(rows)
    outside = ~losses & ((values < 0) | (values > 1))
    refuse(rows, outside, "the value is outside [0, 1] (divide a percentage by 100)", "value")
    samples = numbers(rows, "n") if "n" in rows else np.full(len(rows), np.nan)
    found, amiss = np.where(losses, values, 1 - values), np.full(len(rows), "", dtype=object)
    amiss[np.isnan(values)] = "the value is missing (NaN)"
    amiss[losses & ((values <= 0) | np.isinf(values))] = "a loss that is not positive and finite has no logarithm"
    saturated = ~losses & (values == 1)
    amiss[saturated] = np.where(
        samples[saturated] > 0, SATURATED, "a value of 1 leaves no error: there is no logarithm"
    )
    found = np.where(amiss == SATURATED, 0.5 / (samples + 1), found)
    return np.where((amiss == "") | (amiss == SATURATED), found, np.nan), amiss


def archs(rows: pd.DataFrame) -> np.ndarray:
    """Architectures ``[rows]`` without the activation in their name; empty where the table has none."""
    if "arch" not in rows:
        return np.full(len(rows), "", dtype=object)
    return rows["arch"].fillna("").astype(object).str.removesuffix("-quickgelu").to_numpy(object)


def mixed_sources(table: pd.DataFrame) -> list[str]:
    """The sources that the table has shares of."""
    return [
        name.removeprefix(MIX) for name in map(str, table.columns) if name.startswith(MIX) and table[name].notna().any()
    ]


def shares(table: pd.DataFrame, names: Sequence[str]) -> np.ndarray:
    """``[rows, sources]`` of a table. A missing share beside others is 0; a row without any is of its ``source`` alone,
    where that is one of ``names``, else NaN. Raises MeasureError where a share is not a number."""
    found = np.stack([numbers(table, MIX + name) for name in names], axis=1)
    without = np.isnan(found).all(1)
    source = table["source"].astype(object).to_numpy() if "source" in table else np.full(len(table), None)
    alone = (source[:, None] == np.array(names, dtype=object)) & without[:, None]
    found = np.where(np.isnan(found) & (~without | alone.any(1))[:, None], 0.0, found)
    return np.where(alone, 1.0, found)


def mixture_label(shares: Mapping[str, float]) -> str:
    """``0.25 material + 0.75 phosphor-remix``, or the name of a source alone."""
    parts = {name: f"{share:.4g}" for name, share in shares.items()}
    alone = next((name for name, share in parts.items() if share == "1"), None)
    return alone or " + ".join(f"{share} {name}" for name, share in parts.items() if share != "0")


def refuse(rows: pd.DataFrame, wrong: np.ndarray, why: str, column: str = "") -> None:
    """Raises MeasureError about the first of the ``wrong`` rows, if any."""
    if not wrong.any():
        return
    row = rows[wrong].iloc[0]
    value = f": {row[column]}" if column else ""
    others = f" (the first of {int(wrong.sum())} such rows)" if wrong.sum() > 1 else ""
    raise MeasureError(f"{row_label(row)}: {why}{value}{others}. Correct the row, or take it out of the table.")


VERSIONS = {
    "dataset_fingerprint": "contents of the data set",
    "train_fingerprint": "training data",
    "prompts": "sets of prompts",
    "prompts_digest": "class names or templates",
    "task_version": "versions of the task",
    "precision": "precisions",
    "split": "splits",
    "protocol": "protocols",
}


def mixed(rows: pd.DataFrame) -> list[str]:
    """Sentences about values of one data set and metric that were measured on different things."""
    found = []
    for name in [name for name in VERSIONS if name in rows]:
        counts = rows.groupby(name)["model"].nunique()
        if len(counts) > 1:
            listed = ", ".join(f"{count} with {str(value)[:12]}" for value, count in counts.items())
            found.append(f"different {VERSIONS[name]} are mixed ({name}; checkpoints: {listed})")
    return found


def row_label(row: Any) -> str:
    """``results.csv: row 3 (ViT-B-32,openai, imagenet1k, acc1)``; rows count from 1."""
    file = row.get("results_file")
    number = row.name + 1 if isinstance(row.name, int | np.integer) else row.name
    what = ", ".join(str(row.get(name)) for name in ("model", "dataset", "metric"))
    return f"{file + ': ' if isinstance(file, str) else ''}row {number} ({what})"

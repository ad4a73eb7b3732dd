"""Several results as one table, and what the page needs to know of each row."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from clipeval.config import Config
from clipeval.errors import MeasureError
from clipeval.results.reading import Results, is_table, named, read_tables

if TYPE_CHECKING:
    import pandas as pd

MEASURED = ("ok", "limited")
HELPERS = ("row", "good", "final", "run", "suite")
"""Columns that ``read`` adds."""
_END_OF_TRAINING = 0.98


def read(results: Results, config: Config) -> pd.DataFrame:
    """The rows of all results, a row that several of them hold once, with the columns of ``HELPERS``.

    ``row`` is its number; ``good``: it holds a finite value of a metric; ``run``: the training run of the checkpoint;
    ``final``: the checkpoint ends its run; ``suite``: it is an average over data sets. A model, data set or task that
    is not named is an empty text. Raises UsageError for what is no results table, MeasureError where there is no row.
    """
    joined = read_tables([results] if is_table(results) else results)
    if "results_file" not in joined:
        joined = joined.assign(results_file="published")
    joined["results_file"] = joined["results_file"].fillna("published")
    joined = joined[~joined.drop(columns="results_file").duplicated()].reset_index(drop=True)
    if joined.empty:
        raise MeasureError(f"{named(results)}: the table has no rows, so there is nothing to report.")
    joined = joined.fillna(dict.fromkeys(("model", "dataset", "task"), ""))
    run = [re.sub(r"/checkpoints/[^/]+$", "", str(model)) for model in joined["model"]]
    status = joined["status"].fillna("ok")
    return joined.assign(
        row=np.arange(len(joined)),
        good=(status.isin(MEASURED) & joined["metric"].notna()).to_numpy(bool)
        & np.isfinite(joined["value"].to_numpy(float, na_value=math.nan)),
        run=run,
        final=_final(joined.assign(run=run)),
        suite=_is_suite(joined, config),
    )


def _is_suite(rows: pd.DataFrame, config: Config) -> np.ndarray:
    named = rows["dataset"].isin(set(config.suites) - set(config.datasets))
    averaged = rows["reference"].str.startswith("mean of ").fillna(False)
    return (named | averaged).to_numpy(bool)


def _final(rows: pd.DataFrame) -> np.ndarray:
    """Which rows are of the last checkpoint of their run.

    Sources round samples seen, so of those within 2 % of the most it is the one with the most rows.
    """
    final = np.ones(len(rows), bool)
    samples = rows["samples_seen"].to_numpy(float)
    for _, group in rows.groupby(["run", "arch", "study"], dropna=False).indices.items():
        seen, counts = np.unique(samples[group][np.isfinite(samples[group])], return_counts=True)
        if len(seen) > 1:
            late = seen >= _END_OF_TRAINING * seen[-1]
            last = seen[late][::-1][np.argmax(counts[late][::-1])]
            final[group] = (samples[group] == last) | ~np.isfinite(samples[group])
    return final


def text(value: Any) -> str:
    """A cell of a text column; empty where it is missing."""
    return value if isinstance(value, str) else ""


def number(value: Any) -> float:
    """A cell of a numeric column; NaN where it is missing."""
    return float(value) if isinstance(value, int | float | np.number) and value == value else math.nan


def why_missing(row: dict[str, Any]) -> str:
    """Why a row of the table holds no value."""
    status = text(row["status"]) or "ok"
    if status in MEASURED:
        return "the value is not a finite number" if text(row["metric"]) else "the row names no metric"
    return f"{status}: {text(row['error']) or 'no reason was recorded'}"

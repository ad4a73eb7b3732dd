"""What is to be fitted, and the rows of a tidy table that this is about: of its tasks, data sets and metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from clipeval import config, vocabulary
from clipeval.condition import condition
from clipeval.errors import ClipevalError, MeasureError, UsageError, first_line, suggest
from clipeval.results.columns import COMPUTE, task_name

if TYPE_CHECKING:
    import pandas as pd

FAMILY = "source_family"
_FALLBACK_METRIC = "mean_average_precision"
_EXAMPLE = "arch != 'RN50' and samples_seen < 1e10"
_REQUIRED = ("model", "dataset", "task", "metric", "value")


@dataclass(frozen=True)
class Question:
    """What is to be fitted.

    Of the table only the rows are looked at for which the condition ``where`` holds, where there is one.

    ``datasets`` may hold globs, None asks for all; without a ``metric`` it is each task's main ones, or those that
    ``main_metrics`` names instead; ``x`` has one column, or several for joint laws; one law is fitted for each value of
    the column ``by``. ``forecasts`` are the models that are asked for, ``cluster`` a column of points that err alike.
    """

    task: str | None = None
    datasets: tuple[str, ...] | None = None
    metric: str | None = None
    x: tuple[str, ...] = (COMPUTE,)
    by: str = FAMILY
    main_metrics: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    forecasts: Sequence[str] = ()
    cluster: str | None = None
    where: str | None = None


def rows_where(table: pd.DataFrame, text: str) -> pd.DataFrame:
    """The rows for which a condition on columns holds, such as ``arch != 'RN50' and samples_seen < 1e10``.

    A comparison with a value that is missing is not true. Raises UsageError for what is no condition, and for columns
    that are not there or cannot be compared so; MeasureError where no row is left.
    """
    import pyarrow

    try:
        asked = condition(text, _EXAMPLE)
        for name in asked.fields:
            if name not in table:
                filled = _filled(table)
                raise UsageError(
                    f"--where {text}: the results table has no column '{name}'.{suggest(name, filled.split(', '))} "
                    f"Columns with values: {filled}."
                )
        columns = {name: pyarrow.array(table[name], from_pandas=True) for name in asked.fields}
        kept = asked.holds(pyarrow.table(columns))
    except (ValueError, TypeError, OverflowError, pyarrow.ArrowException) as error:
        raise UsageError(f"--where {text}: {first_line(error)}.") from error
    if not kept.any():
        raise MeasureError(f"--where {text}: holds for none of the {len(table)} rows.")
    return table[kept]


def require_columns(table: pd.DataFrame, question: Question) -> None:
    for column in _REQUIRED:
        if column not in table or table[column].isna().all():
            raise UsageError(
                f"the results table has no column '{column}', or nothing in it. A fit needs model, source, gmacs, "
                f"samples_seen, dataset, task, metric and value. Columns with values: {_filled(table)}."
            )
    clusters = () if question.cluster is None else (("--cluster", question.cluster),)
    for option, column in (*(("--x", column) for column in question.x), ("--by", question.by), *clusters):
        if column not in table and column not in (COMPUTE, FAMILY):
            filled = _filled(table)
            raise UsageError(
                f"{option} {column}: the results table has no such column.{suggest(column, filled.split(', '))} "
                f"Columns with values: {filled}."
            )


def _filled(table: pd.DataFrame) -> str:
    return ", ".join(str(name) for name in table.columns if table[name].notna().any()) or "none"


def of_question(table: pd.DataFrame, question: Question, notes: list[str]) -> pd.DataFrame:
    """The rows of the tasks and data sets of the question. A note says what a data set is called here."""
    rows = table
    if question.task is not None:
        task = task_name(question.task, rows)
        rows = rows[rows["task"].isin([task]).to_numpy(bool)]
        if rows.empty:
            tasks = ", ".join(sorted(table["task"].dropna().unique()))
            raise MeasureError(f"--task {question.task}: no row matches. Tasks in the results table: {tasks}.")
    if question.datasets is None:
        return rows
    there = sorted(rows["dataset"].dropna().unique())
    wanted: set[str] = set()
    for word in question.datasets:
        found = {name for name in there if fnmatchcase(name, word)}
        if not found and (longer := vocabulary.ALIASES.get(word)) in there:
            found = {longer}
            notes.append(f"--dataset {word}: {longer} is meant")
        if not found:
            raise _no_data_set(word, there)
        wanted |= found
    return rows[rows["dataset"].isin(wanted).to_numpy(bool)]


def _no_data_set(word: str, there: Sequence[str]) -> ClipevalError:
    """The error of a word that no row matches: a data set that the table lacks, or a word that names none."""
    close = suggest(word, [*there, *(short for short, name in vocabulary.ALIASES.items() if name in there)])
    text = f"--dataset {word}: no row matches.{close} Data sets there: {', '.join(there)}."
    is_one = word in vocabulary.ALIASES or config.packaged().dataset(word) or set(word) & set("*?[")
    return MeasureError(text) if is_one else UsageError(text)


def usable(rows: pd.DataFrame, left_out: dict[str, int]) -> pd.DataFrame:
    """Rows with a full, measured value that belong in a fit."""
    import pandas as pd

    reasons = pd.Series("", index=rows.index, dtype=object)
    if "status" in rows:
        reasons = rows["status"].fillna("ok").astype(object).replace("ok", "")
    if "error" in rows:
        reasons = reasons.where(rows["error"].isna() | (reasons == ""), reasons + ": " + rows["error"].astype(object))
    reasons = reasons.replace("limited", "limited: measured on a part of the data set")
    if "from_scratch_filter" in rows:
        reasons = reasons.where(reasons != "", rows["from_scratch_filter"].fillna("").astype(object))
    for name in ("model", "dataset", "task", "metric"):
        reasons = reasons.where((reasons != "") | rows[name].notna(), f"no {name} is named")
    for reason, count in reasons[reasons != ""].value_counts().items():
        left_out[str(reason)] = int(count)
    kept = rows[(reasons == "").to_numpy(bool)]
    if kept.empty:
        listed = "; ".join(f"{count} rows {reason}" for reason, count in left_out.items())
        raise MeasureError(f"no row that matches can be fitted: {listed}.")
    return kept


def of_metrics(rows: pd.DataFrame, question: Question) -> pd.DataFrame:
    """The rows of the metric asked for, or of each task's main metric (both directions of retrieval)."""
    import pandas as pd

    parts = []
    for (task, dataset), group in rows.groupby(["task", "dataset"], sort=True):
        there = sorted(group["metric"].dropna().unique())
        for metric in _metrics(str(task), str(dataset), there, question):
            part = group[(group["metric"] == metric).to_numpy(bool)]
            lacking = sorted(set(group["model"]) - set(part["model"]))
            if lacking:
                has = ", ".join(sorted(set(group.loc[(group["model"] == lacking[0]).to_numpy(bool), "metric"])))
                raise MeasureError(
                    f"mixed metrics on {dataset}: {lacking[0]} has {has}, but not {metric} as other checkpoints have. "
                    "Name a metric that all have with --metric, or take the checkpoint out of the table."
                )
            parts.append(part)
    if not parts:
        there = sorted(rows["metric"].dropna().unique())
        raise MeasureError(
            f"--metric {question.metric}: no row matches.{suggest(str(question.metric), there)} "
            f"Metrics there: {', '.join(there)}."
        )
    return pd.concat(parts)


def _metrics(task: str, dataset: str, there: Sequence[str], question: Question) -> list[str]:
    if question.metric is not None:
        return [question.metric] if question.metric in there else []
    asked = tuple(metric for metric in there if vocabulary.metric(metric).asked)
    main = question.main_metrics.get(task) or asked or vocabulary.task(task).main
    found = [metric for metric in main if metric in there] or [m for m in there if m == _FALLBACK_METRIC]
    found = found or [metric for metric in there if vocabulary.metric(metric).lower]
    if not found and len(there) != 1:
        raise UsageError(f"{dataset}: name the metric to fit with --metric. Metrics there: {', '.join(there)}.")
    return found or list(there)

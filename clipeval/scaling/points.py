"""Which rows of a tidy table answer a question: one checkpoint per point, and an account of what is left out."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import numpy as np

from clipeval import config, vocabulary
from clipeval.condition import condition
from clipeval.errors import ClipevalError, MeasureError, UsageError, first_line, suggest
from clipeval.results.columns import (
    COMPUTE,
    SATURATED,
    are_losses,
    compute,
    errors,
    mixed,
    mixed_sources,
    mixture_label,
    numbers,
    refuse,
    row_label,
    scales,
    shares,
    task_name,
)
from clipeval.results.schema import CIRCUMSTANCES

if TYPE_CHECKING:
    import pandas as pd

FAMILY = "source_family"
_FALLBACK_METRIC = "mean_average_precision"
_EXAMPLE = "arch != 'RN50' and samples_seen < 1e10"
_REQUIRED = ("model", "dataset", "task", "metric", "value")
_CHECKPOINT = ("model", "arch", "pretrained", "samples_seen", "gmacs")
"""What makes two rows values of the same checkpoint."""
Cell = tuple[str, str, str, int | None]
"""Task, data set, metric, shots: what laws share that can be compared."""


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


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints behind one law, in ascending order of (the first) x.

    ``x`` is ``[n]``, or ``[n, inputs]`` for several columns; ``error`` is ``[n]``, 1 - value, in (0, 1], or of a
    ``loss`` any positive number, the value itself; ``samples`` is ``[n]``, how many samples each value rests on (NaN:
    unknown). ``table`` has the same n rows of the tidy table.
    """

    cell: Cell
    source: str
    x: np.ndarray
    error: np.ndarray
    samples: np.ndarray
    table: pd.DataFrame
    loss: bool = False

    @property
    def unit(self) -> float:
        """What errors are multiplied with to be shown: 100 for percents, 1 for a loss."""
        return 1.0 if self.loss else 100.0

    def value(self, error: float) -> float:
        """The value of the metric that is this error."""
        return error if self.loss else 1 - error

    @property
    def label(self) -> str:
        """For messages."""
        _, dataset, metric, shots = self.cell
        return f"{dataset} · {metric}{f' · {shots} shots' if shots else ''} · {self.source}"

    def where(self, keep: np.ndarray) -> Checkpoints:
        """The points at which the mask ``keep`` ``[n]`` holds."""
        return replace(self, x=self.x[keep], error=self.error[keep], samples=self.samples[keep], table=self.table[keep])


@dataclass(frozen=True)
class Selection:
    """The points of every law, and what became of the other rows: ``left_out`` maps a reason to a number of rows.
    ``mixed`` says in which circumstances the values of one law differ."""

    points: list[Checkpoints]
    left_out: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    mixed: list[str] = field(default_factory=list)

    def digest(self) -> str:
        """SHA-256 of everything the fits depend on: checkpoint, source, x and error of each point."""
        found = hashlib.sha256()
        for points in self.points:
            found.update(repr((points.cell, points.source, list(points.table["model"]))).encode())
            found.update(points.x.tobytes() + points.error.tobytes())
        return found.hexdigest()


def select(table: pd.DataFrame, question: Question) -> Selection:
    """The points of each law that ``question`` asks for.

    Left out and counted are rows that were not measured, or only on a part of the data set; rows whose column
    ``from_scratch_filter`` says why they do not belong in a fit; and repeated values. Raises UsageError when a column,
    a task or a metric is unknown, MeasureError when nothing matches or a number cannot be used, naming the row.
    """
    _require_columns(table, question)
    left_out: dict[str, int] = {}
    notes: list[str] = []
    asked = _asked(table, question, notes)
    rows = rows_where(asked, question.where) if question.where else asked
    if len(rows) < len(asked):
        left_out[f"outside of --where {question.where}"] = len(asked) - len(rows)
    rows = _usable(rows, left_out)
    rows = _with_source(_of_metrics(rows, question), question.by, notes)
    rows = _with_scale(rows, question.x, left_out)
    rows = _with_error(rows, left_out, notes)
    rows = rows.assign(fit_x=list(scales(rows, question.x)))
    rows = _one_per_checkpoint(rows, left_out, notes)
    return Selection(list(_checkpoints(rows)), left_out, notes, _mixed(rows))


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


def _require_columns(table: pd.DataFrame, question: Question) -> None:
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


def _asked(table: pd.DataFrame, question: Question, notes: list[str]) -> pd.DataFrame:
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


def _usable(rows: pd.DataFrame, left_out: dict[str, int]) -> pd.DataFrame:
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


def _of_metrics(rows: pd.DataFrame, question: Question) -> pd.DataFrame:
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


def source_of(rows: pd.DataFrame, by: str) -> pd.Series:
    """The value of the column ``by`` for each row; for families, ``source`` where no family is given.

    As sources, mixtures of other shares are others: ``0.25 a + 0.75 b``.
    """
    if by not in (FAMILY, "source") or "source" not in rows:
        return rows[by]
    found = rows["source"] if by not in rows else rows[by].fillna(rows["source"])
    names = mixed_sources(rows)
    if len(names) < 2:
        return found
    mixed, labels = shares(rows, names), found.astype(object).to_numpy(copy=True)
    for row in np.flatnonzero(((mixed > 0) & (mixed < 1)).any(1)):
        labels[row] = mixture_label(dict(zip(names, mixed[row], strict=True)))
    return type(found)(labels, index=found.index)


def _with_source(rows: pd.DataFrame, by: str, notes: list[str]) -> pd.DataFrame:
    """Adds the column ``fit_source``."""
    if by not in rows and "source" not in rows:
        raise UsageError("the results table has neither 'source_family' nor 'source'. Name a column with --by.")
    values = source_of(rows, by)
    refuse(rows, values.isna().to_numpy(bool), f"no {by}{' and no source' if by == FAMILY else ''}")
    without = rows[by].isna().sum() if by in rows else len(rows)
    if without:
        notes.append(f"{without} of {len(rows)} rows have no source_family: they are fitted by source")
    return rows.assign(fit_source=values.astype(str))


def _with_scale(rows: pd.DataFrame, columns: Sequence[str], left_out: dict[str, int]) -> pd.DataFrame:
    """Leaves out rows of published studies that do not say how large a checkpoint is: nobody can fill that in."""
    if "study" not in rows:
        return rows
    for column in columns:
        values = compute(rows) if column == COMPUTE else numbers(rows, column)
        unknown = np.isnan(values) & rows["study"].notna().to_numpy(bool)
        if unknown.any() and not unknown.all():
            left_out[f"{column} is not known"] = int(unknown.sum())
            rows = rows[~unknown]
    return rows


def _with_error(rows: pd.DataFrame, left_out: dict[str, int], notes: list[str]) -> pd.DataFrame:
    """Adds the column ``fit_error``; rows whose value has no logarithm are left out."""
    found, amiss = errors(rows)
    kept = ~np.isnan(found)
    for reason in dict.fromkeys(amiss[~kept]):
        left_out[reason] = left_out.get(reason, 0) + int((amiss == reason).sum())
    if saturated := int((amiss == SATURATED).sum()):
        notes.append(f"{SATURATED}: {saturated} of {len(rows)} rows")
    if not kept.any():
        raise MeasureError(f"no row that matches can be fitted: {'; '.join(dict.fromkeys(amiss))}.")
    return rows.assign(fit_error=found)[kept]


def _one_per_checkpoint(rows: pd.DataFrame, left_out: dict[str, int], notes: list[str]) -> pd.DataFrame:
    """Repeats of the same value are left out and seeds are averaged; any other repetition is an error."""
    key = [*_cell_columns(rows), *(name for name in _CHECKPOINT if name in rows)]
    if not rows.duplicated(key).any():
        return rows
    again = rows.duplicated([*key, "fit_error", *(["seed"] if "seed" in rows else [])]).to_numpy()
    if again.any():
        left_out["the same value of the same checkpoint again"] = int(again.sum())
        rows = rows[~again]
    for _, group in rows.groupby(key, dropna=False, sort=False):
        if len(group) > 1 and ("seed" not in group or group["seed"].nunique() < len(group)):
            differ = [n for n in ("protocol", *CIRCUMSTANCES) if n in group and group[n].nunique(dropna=False) > 1]
            why = f" They differ in {', '.join(differ)}." if differ else ""
            raise MeasureError(
                f"{row_label(group.iloc[0])}: {len(group)} different values for one checkpoint.{why} "
                "Keep one of them in the table."
            )
    means = rows.groupby(key, dropna=False)["fit_error"].transform("mean")
    averaged = rows.assign(fit_error=means).drop_duplicates(key)
    if len(averaged) < len(rows):
        notes.append(f"{len(rows)} values of several seeds are averaged to {len(averaged)}, one per checkpoint")
    return averaged


def _mixed(rows: pd.DataFrame) -> list[str]:
    """What makes values of one law values of different measurements, once for each that has the same."""
    where: dict[str, list[str]] = {}
    for (dataset, metric), group in rows.groupby(["dataset", "metric"], sort=True):
        for said in mixed(group):
            where.setdefault(said, []).append(f"{dataset} · {metric}")
    return [f"{'; '.join(cells[:3])}{' ...' * (len(cells) > 3)}: {said}" for said, cells in where.items()]


def _is_loss(rows: pd.DataFrame) -> bool:
    """Whether the metric of a law is better when lower. Raises MeasureError where its rows disagree."""
    losses = are_losses(rows)
    refuse(rows, losses != losses[0], "higher_is_better is another than in other rows of its metric")
    return bool(losses[0])


def _cell_columns(rows: pd.DataFrame) -> list[str]:
    return ["task", "dataset", "metric", *(["shots"] if "shots" in rows else []), "fit_source"]


def _checkpoints(rows: pd.DataFrame) -> Iterator[Checkpoints]:
    import pandas as pd

    for key, group in rows.groupby(_cell_columns(rows), dropna=False, sort=True):
        named: list[Any] = list(key)
        task, dataset, metric, *shots, source = named
        x = np.stack(group["fit_x"].to_list())
        order = np.lexsort((group["fit_error"], x[:, 0]))
        group, x = group.iloc[order], x[order]
        yield Checkpoints(
            cell=(task, dataset, metric, int(shots[0]) if shots and pd.notna(shots[0]) else None),
            source=source,
            x=x[:, 0] if x.shape[1] == 1 else x,
            error=group["fit_error"].to_numpy(np.float64),
            samples=numbers(group, "n") if "n" in group else np.full(len(group), np.nan),
            table=group.drop(columns=["fit_x", "fit_error", "fit_source"]),
            loss=_is_loss(group),
        )

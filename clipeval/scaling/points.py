"""Which rows of a tidy table answer a question: one checkpoint per point, and an account of what is left out."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from clipeval.errors import MeasureError, UsageError
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
)
from clipeval.results.schema import CIRCUMSTANCES
from clipeval.scaling.asked import FAMILY, Question, of_metrics, of_question, require_columns, rows_where, usable

if TYPE_CHECKING:
    import pandas as pd

_CHECKPOINT = ("model", "arch", "pretrained", "samples_seen", "gmacs")
"""What makes two rows values of the same checkpoint."""
Cell = tuple[str, str, str, int | None]
"""Task, data set, metric, shots: what laws share that can be compared."""


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
    require_columns(table, question)
    left_out: dict[str, int] = {}
    notes: list[str] = []
    asked = of_question(table, question, notes)
    rows = rows_where(asked, question.where) if question.where else asked
    if len(rows) < len(asked):
        left_out[f"outside of --where {question.where}"] = len(asked) - len(rows)
    rows = usable(rows, left_out)
    rows = _with_source(of_metrics(rows, question), question.by, notes)
    rows = _with_scale(rows, question.x, left_out)
    rows = _with_error(rows, left_out, notes)
    rows = rows.assign(fit_x=list(scales(rows, question.x)))
    rows = _one_per_checkpoint(rows, left_out, notes)
    return Selection(list(_checkpoints(rows)), left_out, notes, _mixed(rows))


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

    laws = rows.groupby(_cell_columns(rows), dropna=False, sort=True)
    number, x, error = laws.ngroup().to_numpy(), np.stack(rows["fit_x"].to_list()), rows["fit_error"].to_numpy()
    order = np.lexsort((error, x[:, 0], number))
    rows, x = rows.iloc[order], x[order]  # once: parts of them are views then
    ends = np.cumsum(np.bincount(number))
    for first, end in zip([0, *ends[:-1]], ends, strict=True):
        group, scale = rows.iloc[first:end], x[first:end]
        task, dataset, metric, *shots, source = group[_cell_columns(rows)].iloc[0]
        yield Checkpoints(
            cell=(task, dataset, metric, int(shots[0]) if shots and pd.notna(shots[0]) else None),
            source=source,
            x=scale[:, 0] if x.shape[1] == 1 else scale,
            error=group["fit_error"].to_numpy(np.float64),
            samples=numbers(group, "n") if "n" in group else np.full(len(group), np.nan),
            table=group.drop(columns=["fit_x", "fit_error", "fit_source"]),
            loss=_is_loss(group),
        )

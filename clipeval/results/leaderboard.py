"""A results table as people compare checkpoints: one row for each, one column per data set."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from clipeval import config as configuration
from clipeval import vocabulary
from clipeval.errors import MeasureError, UsageError, suggest
from clipeval.names import display_names
from clipeval.results.columns import records, task_name
from clipeval.results.reading import Results, named, read_results
from clipeval.results.schema import WITH_VALUE
from clipeval.results.suites import main_metrics
from clipeval.spelling import also, several

if TYPE_CHECKING:
    import pandas as pd

FACTS = ("arch", "source", "samples_seen", "gmacs_total")
"""The first columns."""
Cell = tuple[str, str, int | None]
"""Task, data set and shots."""


@also(dataset="datasets", table="results")
def leaderboard(
    results: Results,
    *,
    task: str | None = None,
    datasets: Sequence[str] | str | None = None,
    metric: str | None = None,
    full_names: bool = False,
    config: configuration.Config | str | Path | None = None,
) -> pd.DataFrame:
    """One row per checkpoint, with its architecture, source, samples seen and GMACs, then one column per data set or
    suite; best first, by the mean rank over these. Rows have the names that people read, which are unique in a table,
    or with ``full_names`` those of the column ``model``.

    Values are the main metric of each data set, as in the table (fractions); both directions of retrieval are columns.
    A column is named by the data set, and by task, shots and metric where it has several. Of what was measured more
    than once the first counts, at the most samples seen. A value that is not there is NaN. ``task``, ``datasets`` and
    ``metric`` choose. Raises UsageError for names that the table lacks, MeasureError where it holds no value.
    """
    table = read_results(results)
    chosen = {"task": several(task and task_name(task, table)), "dataset": several(datasets), "metric": several(metric)}
    whole = table
    for column, names in chosen.items():
        there = sorted(whole[column].dropna().unique())
        for name in names:
            if name not in there:
                raise UsageError(f"{named(results)}: no {column} '{name}'.{suggest(name, there)}")
        if names:
            table = table[table[column].isin(names)]
    good = table[table["status"].fillna("ok").isin(WITH_VALUE) & table["metric"].notna() & table["value"].notna()]
    if good.empty:
        raise MeasureError(f"{named(results)}: no row of these has a value.")
    if not isinstance(config, configuration.Config):
        config = configuration.load(config)
    board = _board(good.sort_values("samples_seen", ascending=False, kind="stable"), config, metric is not None)
    if full_names:
        return board
    readable = display_names(records(whole[["model", "arch", "source", "pretrained", "samples_seen"]]))
    return board.rename(index=lambda model: readable[model])


def _board(rows: pd.DataFrame, config: configuration.Config, every_metric: bool) -> pd.DataFrame:
    import pandas as pd

    cells: dict[Cell, dict[str, dict[str, float]]] = {}
    lower = set()
    for row in records(rows[["model", "task", "dataset", "shots", "metric", "value", "higher_is_better"]]):
        metrics = cells.setdefault((row["task"], row["dataset"], row["shots"]), {})
        metrics.setdefault(row["metric"], {}).setdefault(row["model"], row["value"])
        if row["higher_is_better"] is False:
            lower.add(row["metric"])
    columns, ranks = {}, []
    for cell in sorted(cells, key=_place):
        metrics = cells[cell]
        shown = list(metrics) if every_metric else main_metrics(cell[0], cell[1], list(metrics), config)
        for metric in shown:
            values = pd.Series(metrics[metric], dtype="float64")
            columns[_name(cell, metric if len(shown) > 1 else "", cells)] = values
            ranks.append(values.rank(pct=True, ascending=metric not in lower))
    best = pd.concat(ranks, axis=1).mean(axis=1).sort_values(ascending=False, kind="stable").index
    facts = rows.drop_duplicates("model").set_index("model")[list(FACTS)]
    return facts.join(pd.DataFrame(columns)).loc[best].rename_axis("model")


def _place(cell: Cell) -> tuple[object, ...]:
    """Sort key: tasks in their order, data sets by name, few shots first and all there is last."""
    task, dataset, shots = cell
    return vocabulary.task_place(task), dataset, shots is None, shots or 0


def _name(cell: Cell, metric: str, cells: Iterable[Cell]) -> str:
    task, dataset, shots = cell
    siblings = [other for other in cells if other[1] == dataset]
    parts = [dataset]
    if len({other[0] for other in siblings}) > 1:
        parts.append(task)
    if shots is not None and len({other[2] for other in siblings}) > 1:
        parts.append(f"{shots} shots")
    return " ".join([*parts, metric]).strip()

"""The laws of the page: those that ``clipeval fit`` derives from the same results, and why some data sets have none."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from clipeval.config import Config
from clipeval.errors import ClipevalError
from clipeval.reporting.rows import HELPERS
from clipeval.results.columns import compute
from clipeval.results.suites import main_metrics
from clipeval.scaling.asked import FAMILY, Question
from clipeval.scaling.fit import fit
from clipeval.scaling.fitted import Fit
from clipeval.scaling.output.result import FitResult
from clipeval.scaling.points import Cell, select, source_of
from clipeval.scaling.questions.compare import Comparison
from clipeval.scaling.validation import TOO_FEW

if TYPE_CHECKING:
    import pandas as pd

_NAMED = ("model", "dataset", "task")
_SAME = ["model", "dataset", "task", "metric", "samples_seen", "shots", "seed"]


@dataclass(frozen=True)
class Law:
    """The fit of one source, and its ``numbers`` as in the table of fits."""

    fit: Fit
    numbers: dict[str, Any]

    @property
    def source(self) -> str:
        """The source whose checkpoints were fitted."""
        return self.fit.points.source

    @property
    def found(self) -> bool:
        """Whether the points are enough for a law."""
        return self.fit.estimate is not None and self.fit.verdict != TOO_FEW


@dataclass(frozen=True)
class Group:
    """The laws of one data set and metric, the comparisons of their sources, and over how many comparisons, of all data
    sets, p values are corrected."""

    laws: tuple[Law, ...] = ()
    pairs: tuple[Comparison, ...] = ()
    corrected_over: int = 0

    @property
    def found(self) -> tuple[Law, ...]:
        """The laws of sources that have points enough."""
        return tuple(law for law in self.laws if law.found)


@dataclass(frozen=True)
class Laws:
    """What ``clipeval fit`` says of the results. ``refused`` has the reason for each task and data set that it cannot
    fit; ``notes`` are sentences on the table as a whole."""

    results: tuple[FitResult, ...]
    refused: dict[tuple[str, str], str]
    notes: tuple[str, ...] = ()

    @cached_property
    def groups(self) -> dict[Cell, Group]:
        """By task, data set, metric and shots."""
        found: dict[Cell, Group] = {}
        for result in self.results:
            pairs: dict[Cell, list[Comparison]] = {}
            for pair in result.pairs:
                pairs.setdefault(pair.cell, []).append(pair)
            numbers: list[Any] = result.fits.to_dict("records")
            laws: dict[Cell, list[Law]] = {}
            for law, row in zip(result.laws, numbers, strict=True):
                laws.setdefault(law.points.cell, []).append(Law(law, row))
            tests = sum(math.isfinite(pair.alpha.p) for pair in result.pairs)
            found |= {cell: Group(tuple(of), tuple(pairs.get(cell, ())), tests) for cell, of in laws.items()}
        return found


def laws_of(rows: pd.DataFrame, config: Config) -> Laws:
    """Fit all data sets of the report's ``rows`` with the options that ``clipeval fit`` has by default.

    Where the configuration names another main metric for a data set than the fit's own, it is fitted as
    ``clipeval fit --metric`` does.
    """
    table = _as_given(rows)
    refused: dict[tuple[str, str], str] = {}
    notes: list[str] = []
    results = list(_fitted(table, None, refused, notes))
    there = {law.points.cell[:3] for result in results for law in result.laws}
    for metric, datasets in _other_metrics(rows, config, there).items():
        named = [key in datasets for key in zip(table["task"], table["dataset"], strict=True)]
        results += _fitted(table[np.array(named)], metric, refused, notes)
    return Laws(tuple(results), refused, tuple(dict.fromkeys(notes)))


def _as_given(rows: pd.DataFrame) -> pd.DataFrame:
    """The table as the command reads it, with the column ``row`` by which points lead to their rows."""
    import pandas as pd

    table = rows.drop(columns=[name for name in HELPERS if name != "row"])
    return table.assign(**{name: table[name].where(table[name] != "", pd.NA) for name in _NAMED})


def _other_metrics(
    rows: pd.DataFrame, config: Config, there: set[tuple[str, str, str]]
) -> dict[str, set[tuple[str, str]]]:
    """The main metrics of the page that are not among those fitted, each with its tasks and data sets."""
    found: dict[str, set[tuple[str, str]]] = {}
    fitted = {key[:2] for key in there}
    for (task, dataset), group in rows[rows["good"].to_numpy(bool)].groupby(["task", "dataset"], sort=False):
        key = str(task), str(dataset)
        for metric in main_metrics(*key, list(group["metric"].unique()), config):
            if key in fitted and (*key, metric) not in there:
                found.setdefault(metric, set()).add(key)
    return found


def _fitted(
    table: pd.DataFrame, metric: str | None, refused: dict[tuple[str, str], str], notes: list[str]
) -> Iterator[FitResult]:
    """The fit of a table, or where it is refused that of the data sets which can be fitted."""
    import pandas as pd

    try:
        yield fit(table, metric=metric)
        return
    except ClipevalError as error:
        whole = _reason(error)
    kept = []
    for _, part in _usable(table).groupby(["task", "dataset"], sort=False):
        try:
            select(part, Question(metric=metric))
            kept.append(part)
        except ClipevalError as error:
            refused |= dict.fromkeys(_keys([part]), _reason(error))
    try:
        if kept:
            yield fit(pd.concat(kept), metric=metric)
            notes.append(
                f"clipeval fit refuses these results as they are: {whole}. Laws are of the rows that it can use"
            )
    except ClipevalError as error:
        refused |= {key: _reason(error) for key in _keys(kept)}


def _usable(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of known compute and source; of repeated values the first."""
    x, source = compute(table), source_of(table, FAMILY)
    good = (x > 0) & np.isfinite(x) & source.notna().to_numpy(bool)
    return table[good].drop_duplicates([name for name in _SAME if name in table])


def _keys(parts: Iterable[pd.DataFrame]) -> Iterator[tuple[str, str]]:
    yield from ((str(part["task"].iloc[0]), str(part["dataset"].iloc[0])) for part in parts)


def _reason(error: Exception) -> str:
    return str(error).split(". ")[0].rstrip(".")

"""Paired comparison: two checkpoints on the same samples, computed for all pairs of a few checkpoints."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from clipeval.config import Config
from clipeval.reporting import words
from clipeval.reporting.rows import main_metrics, records
from clipeval.results.outcomes import Outcomes, Shelf
from clipeval.stats.intervals import Z_95, Interval, bootstrap_p, mcnemar_p, percentile_interval, resampled_means

if TYPE_CHECKING:
    import pandas as pd

MOST_MODELS = 16
"""Checkpoints of which all pairs are computed."""
_DRAWS = 2000
_SEED = 0


@dataclass(frozen=True)
class Difference:
    """A minus B of one metric, in [-1, 1], with its 95 % interval. ``p`` is two-sided; ``only_a`` and ``only_b`` count
    the samples that one of them alone gets right."""

    value: float
    low: float
    high: float
    p: float
    only_a: int
    only_b: int
    n: int
    test: str


@dataclass(frozen=True)
class Comparison:
    """``cells`` names the measurements; ``rows[m][c]`` is the row of the table in which model m has cell c, -1 without;
    ``pairs[a, b][c]`` compares models a < b where both have outcomes on the same samples."""

    models: tuple[str, ...]
    left_out: int
    cells: tuple[tuple[str, str], ...]
    """Data set with shots, and metric."""
    rows: tuple[tuple[int, ...], ...]
    pairs: dict[tuple[int, int], dict[int, Difference]]


def compare(rows: pd.DataFrame, config: Config) -> Comparison:
    """All pairs of the checkpoints with the most per-sample outcomes, at most ``MOST_MODELS``."""
    columns = _columns(rows[(rows["good"] & rows["final"] & ~rows["suite"]).to_numpy(bool)], config)
    counts = Counter(model for column in columns.values() for model in column)
    ranked = [model for model, _ in counts.most_common()]
    models = ranked[:MOST_MODELS]
    cells = [cell for cell, column in columns.items() if len(set(models) & set(column)) > 1]
    pairs: dict[tuple[int, int], dict[int, Difference]] = {}
    for place, cell in enumerate(cells):
        metric, of_model = cell[1], columns[cell]
        hits = {m: of_model[m].outcomes.hits(metric, of_model[m].value) for m in models if m in of_model}
        for (a, one), (b, other) in itertools.combinations(enumerate(models), 2):
            first, second = hits.get(one), hits.get(other)
            if first is None or second is None:
                continue
            if found := difference(first, second, metric.startswith("image_retrieval")):
                pairs.setdefault((a, b), {})[place] = found
    where = tuple(tuple(columns[cell][m].row if m in columns[cell] else -1 for cell in cells) for m in models)
    titles = tuple((_title(cell), words.metric(cell[1])) for cell in cells)
    return Comparison(tuple(models), len(ranked) - len(models), titles, where, pairs)


class _Measured(NamedTuple):
    row: int
    value: float
    outcomes: Outcomes


def _columns(rows: pd.DataFrame, config: Config) -> dict[tuple[Any, ...], dict[str, _Measured]]:
    """The rows with outcomes by what is measured, then by checkpoint."""
    shelf = Shelf(rows)
    columns: dict[tuple[Any, ...], dict[str, _Measured]] = {}
    wanted = _main_rows(rows, config)
    for row in records(rows[rows["row"].isin(wanted).to_numpy(bool)]):
        if outcomes := shelf.find(row):
            found = _Measured(row["row"], float(row["value"]), outcomes)
            columns.setdefault(_cell(row), {}).setdefault(row["model"], found)
    return columns


def _main_rows(rows: pd.DataFrame, config: Config) -> set[int]:
    """The rows of main metrics that have one outcome per sample; accuracy stands for the mean per class."""
    wanted: set[int] = set()
    for (task, dataset), group in rows.groupby(["task", "dataset"]):
        there = list(group["metric"].dropna().unique())
        main = ["acc1"] if "acc1" in there else main_metrics(str(task), str(dataset), there, config)
        wanted |= set(group.loc[group["metric"].isin(main).to_numpy(bool), "row"])
    return wanted


def _cell(row: dict[str, Any]) -> tuple[Any, ...]:
    """What two checkpoints must share to be compared."""
    names = ("shots", "seed", "limit", "split", "protocol", "task_version", "dataset_fingerprint", "prompts")
    return (row["dataset"], row["metric"], row["task"], *(row[name] for name in names))


def _title(cell: tuple[Any, ...]) -> str:
    dataset, _, task, shots, seed, limit, *_ = cell
    parts = [words.dataset(dataset, int(shots) if shots else None), words.task(task).lower()]
    if shots is not None and seed is not None:
        parts.append(f"draw {seed:.0f}")
    if limit is not None:
        parts.append(f"{limit:.0f} samples")
    return " · ".join(parts)


def difference(a: pd.Series, b: pd.Series, captions: bool) -> Difference | None:
    """Compare 0/1 outcomes with the same ids; None where the ids differ.

    Where samples are ``captions``, those of one image (``image#number``) are not independent: with several, images are
    resampled, the ratio of sums linearised (Cochran 1977, Sampling Techniques, section 6.3).
    Otherwise it is McNemar's exact test, with the adjusted Wald interval of Bonett and Price (2012, J. Educ. Behav.
    Stat. 37:479): z times the standard error after one more discordant sample on either side.
    """
    if not a.index.equals(b.index):
        if len(a) != len(b) or set(a.index) != set(b.index):
            return None
        b = b.reindex(a.index)
    first, second = a.to_numpy(), b.to_numpy()
    only_a, only_b = int(np.sum(first > second)), int(np.sum(second > first))
    value = (only_a - only_b) / len(a)
    images = a.index.str.replace(r"#\d+$", "", regex=True) if captions else a.index
    clusters, position = np.unique(images.to_numpy(str), return_inverse=True)
    if len(clusters) < len(a):
        sums, counts = np.bincount(position, weights=first - second), np.bincount(position)
        shares = np.round(value + (sums - value * counts) / counts.mean(), 12)
        draws = resampled_means(shares, _SEED, _DRAWS)
        sign = 1 if value >= 0 else -1
        p = min(1.0, 2 * bootstrap_p(sign * draws, sign * value, only_a + only_b))
        return Difference(value, *percentile_interval(draws), p, only_a, only_b, len(a), "bootstrap over images")
    p = min(1.0, 2 * min(mcnemar_p(only_a, only_b), mcnemar_p(only_b, only_a)))
    return Difference(value, *paired_interval(only_a, only_b, len(a)), p, only_a, only_b, len(a), "exact McNemar")


def paired_interval(only_a: int, only_b: int, n: int) -> Interval:
    """Bonett and Price's 95 % interval of a difference of two proportions of the same ``n`` samples."""
    more, less = (only_a + 1) / (n + 2), (only_b + 1) / (n + 2)
    centre = more - less
    half = Z_95 * np.sqrt((more + less - centre**2) / (n + 2))
    return float(max(centre - half, -1.0)), float(min(centre + half, 1.0))

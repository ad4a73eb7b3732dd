"""Which cells decide: those of the suites that were asked for, and otherwise the main metrics of all data sets."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from clipeval.checks.matching import Pair
from clipeval.checks.measured import Key, key_of
from clipeval.config import Config
from clipeval.results.suites import COMPOUND_METRICS, SuiteRequest, main_metrics
from clipeval.stats.paired import Paired, average, together
from clipeval.stats.scored import NotPairedError, OtherSamplesError

Tested = Paired | NotPairedError | None
"""A paired test, or why there is none; None where none is due."""


@dataclass(frozen=True)
class Mean:
    """The mean over data sets: per data set the numbers of the cells that count, none where it has no value."""

    datasets: tuple[tuple[int, ...], ...]

    @cached_property
    def cells(self) -> tuple[int, ...]:
        """All of their numbers."""
        return tuple(itertools.chain.from_iterable(self.datasets))

    def test(self, pairs: Sequence[Pair], tests: Sequence[Tested]) -> Tested:
        """Its paired test, from those of its cells."""
        for number in self.cells:
            if (pairs[number].obstacle and pairs[number].current) or isinstance(tests[number], OtherSamplesError):
                return OtherSamplesError(f"the values of {pairs[number].row['dataset']} are not comparable")
        found = [_paired([tests[number] for number in numbers]) for numbers in self.datasets]
        if missing := sum(not own for own in found):
            return NotPairedError(f"{missing} of its {len(found)} data sets have no paired test")
        try:
            return average([together(own) for own in found])
        except OtherSamplesError as reason:
            return reason

    def members(self, pairs: Sequence[Pair]) -> tuple[str, ...]:
        """Its data sets."""
        return tuple(dict.fromkeys(str(pairs[number].row["dataset"]) for number in self.cells))

    def named(self, pairs: Sequence[Pair]) -> tuple[str, str]:
        """Data sets and metrics, for people."""
        names = self.members(pairs)
        metrics = tuple(dict.fromkeys(str(pairs[number].row["metric"]) for number in self.cells))
        of_several = {several: name for name, several in COMPOUND_METRICS.items()}
        metric = metrics[0] if len(metrics) == 1 else of_several.get(metrics, "main_metric")
        return names[0] if len(names) == 1 else f"mean of {len(names)} data sets", metric

    def rounding(self, pairs: Sequence[Pair]) -> float:
        """Points by which it changes where two outcomes of each data set do."""
        return float(np.mean([200 / n for number in self.cells if (n := pairs[number].row.get("n"))] or [0.0]))


def _paired(tests: Sequence[Tested]) -> list[Paired]:
    """The tests, none unless all are there."""
    found = [test for test in tests if isinstance(test, Paired)]
    return found if len(found) == len(tests) else []


def asked_for(pairs: Sequence[Pair], suites: Sequence[SuiteRequest]) -> dict[int, Mean]:
    """The suite averages that both tables have as a row, by the number of their pair."""
    if not suites:
        return {}
    numbers = {(pair.model, key_of(pair.row)): number for number, pair in enumerate(pairs)}
    requests = {(suite.name, suite.metric): suite for suite in suites}
    found = {}
    for number, pair in enumerate(pairs):
        suite = requests.get((pair.row["dataset"], pair.row["metric"]))
        if suite and pair.current and pair.baseline:
            found[number] = Mean(tuple(_cells(pair, suite, *member, numbers) for member in suite.members))
    return found


def _cells(
    pair: Pair, suite: SuiteRequest, dataset: str, metric: str, numbers: dict[tuple[str, Key], int]
) -> tuple[int, ...]:
    """The cells of one data set of a suite, by the metric that counts there; none unless all are there."""
    _, task, _, *variant = key_of(pair.row)
    names = COMPOUND_METRICS.get(metric, (metric,))
    tasks = suite.tasks if len(suite.tasks) > 1 else (task,)
    keys = [(pair.model, (dataset, task, name, *variant)) for name in names for task in tasks]
    found = tuple(numbers[key] for key in keys if key in numbers)
    return found if len(found) == len(names) else ()


def of_main_metrics(pairs: Sequence[Pair], cells: Sequence[int], config: Config) -> Iterator[Mean]:
    """For each checkpoint and task the mean over data sets of these cells, of the metrics that stand for it there."""
    groups: dict[tuple[object, ...], dict[str, dict[str, int]]] = {}
    for number in cells:
        pair = pairs[number]
        dataset, task, metric, *variant = key_of(pair.row)
        group = groups.setdefault((pair.model, pair.baseline_model, task, *variant), {})
        group.setdefault(dataset, {})[metric] = number
    for (_, _, task, *_), group in groups.items():
        names = {dataset: main_metrics(str(task), dataset, list(there), config) for dataset, there in group.items()}
        yield Mean(tuple(tuple(group[dataset][name] for name in found) for dataset, found in names.items()))


def measurements(mean: Mean, pairs: Sequence[Pair]) -> set[tuple[object, ...]]:
    """The data sets of a mean as they were measured: by which checkpoint, task and parameters, whatever the metric."""
    return {measurement(pairs[number]) for number in mean.cells}


def measurement(pair: Pair) -> tuple[object, ...]:
    """What a cell shares with the other metrics of the same outcomes."""
    dataset, task, _, *variant = key_of(pair.row)
    return pair.model, pair.baseline_model, dataset, task, *variant

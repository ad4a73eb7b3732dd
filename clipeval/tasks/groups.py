"""Metrics that a data set's ``main_metric`` asks for: accuracy in the worst group, and F1 over rare classes.

Definitions of DataComp (Gadre et al. 2023) and WILDS (Koh et al. 2021), as their code computes them: every group and
every class that has a sample counts. DataComp means to leave the region "Other" out of FMoW and does not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from clipeval import vocabulary
from clipeval.errors import MetricError, few
from clipeval.metrics import hits_per_class, macro_f1
from clipeval.stats.intervals import percentile_interval, resampled_counts, worst_interval
from clipeval.tasks.base import Metric, TaskResult

_SEED = 0
_MOST_NOTED = 50
"""Groups in the notes, the worst first."""


def with_asked(result: TaskResult, name: str, metadata: Mapping[str, np.ndarray] | None) -> TaskResult:
    """``result`` of a single-label classification with the metric ``name`` as well, and what it is computed from.

    ``metadata`` holds ``[n]`` int64 per field. Where the metric cannot be computed it is a failed one that says why,
    and where it is not defined (the worst group's top-5 accuracy among fewer than 5 classes) a skipped one.
    """
    known, nothing = vocabulary.metric(name), (math.nan, math.nan, math.nan, len(result.samples["id"]))
    notes: dict[str, object] = {}
    samples: dict[str, np.ndarray] = {}
    try:
        if "label" not in result.samples:
            raise MetricError(f"{name} needs one label per image, and here are several.")
        if known.scored == "f1":
            found = _f1(name, result.samples["label"], result.samples["prediction"])
        else:
            samples[known.group] = field_of(metadata, known.group, name)
            if known.column not in result.samples:
                reason = next(metric.error for metric in result.metrics if metric.status == "skipped")
                found = Metric(name, *nothing, status="skipped", error=reason)
            else:
                called = f"{known.group}:{{}}".format
                found, of_groups = worst(name, result.samples[known.column], samples[known.group], called)
                notes = {"groups": {name: of_groups}}
    except MetricError as error:
        found = Metric(name, *nothing, status="failed", error=str(error))
    return TaskResult([*result.metrics, found], result.samples | samples, result.notes | notes)


def field_of(metadata: Mapping[str, np.ndarray] | None, field: str, metric: str) -> np.ndarray:
    """The numbers ``[n]`` of a field of metadata. Raises MetricError where it is not named or one is negative."""
    if metadata is None or field not in metadata:
        named = f"it names {few(metadata)}" if metadata else "it is not given"
        raise MetricError(
            f"{metric} needs the field '{field}' of the numbers in .npy: name them under metadata: of the data set in "
            f"benchmarks.yaml ({named})."
        )
    values = metadata[field]
    if (values < 0).any():
        raise MetricError(f"{metric}: a group has the number {values.min()} in the field '{field}'; they are from 0.")
    return values


def worst(
    name: str, correct: np.ndarray, groups: np.ndarray, called: Callable[[int], str]
) -> tuple[Metric, dict[str, dict[str, float | int]]]:
    """The lowest share of ``correct`` ``[n]`` bool over the groups ``[n]`` that have a sample, with the 95 % interval
    of a resampling within groups; and what notes say of the groups, which are ``called`` so."""
    hits, counts = hits_per_class(correct, groups)
    metric = Metric(name, float((hits / counts).min()), *worst_interval(hits, counts, _SEED), len(correct))
    return metric, noted(hits, counts, [called(int(number)) for number in np.unique(groups)])


def noted(hits: np.ndarray, counts: np.ndarray, names: Sequence[str]) -> dict[str, dict[str, float | int]]:
    """Value and samples of each group, the lowest first."""
    values = hits / counts
    order = np.argsort(values, kind="stable")[:_MOST_NOTED]
    return {names[k]: {"value": float(values[k]), "n": int(counts[k])} for k in order}


def _f1(name: str, labels: np.ndarray, predictions: np.ndarray) -> Metric:
    """Mean over the classes in ``labels`` ``[n]`` of 2 TP / (predicted + true), with a bootstrap over samples."""
    value = float(macro_f1(labels, predictions, np.ones((1, len(labels))))[0])
    pairs, counts = np.unique(np.stack([labels, predictions], axis=1), axis=0, return_counts=True)
    draws = np.concatenate([macro_f1(pairs[:, 0], pairs[:, 1], weights) for weights in resampled_counts(counts, _SEED)])
    low, high = percentile_interval(draws)
    return Metric(name, value, min(low, value), max(high, value), len(labels))

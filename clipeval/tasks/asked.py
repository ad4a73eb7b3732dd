"""The metric that a data set's ``main_metric`` asks for beyond what its task always gives, whoever brings it."""

from __future__ import annotations

import math

from clipeval import extensions, vocabulary
from clipeval.errors import MetricError
from clipeval.tasks import groups, zeroshot_classification
from clipeval.tasks.base import Inputs, Metric, TaskResult
from clipeval.tasks.foreign import score


def with_asked(result: TaskResult, name: str, inputs: Inputs) -> TaskResult:
    """``result`` of a zero-shot classification with the metric ``name`` as well: failed, with the reason, where it
    cannot be computed, and the others stand."""
    dataset = inputs.dataset
    if vocabulary.metric(name).asked:
        return groups.with_asked(result, name, dataset.metadata)
    n = len(dataset)
    try:
        if dataset.labels is None or dataset.labels.ndim != 1:
            raise MetricError(f"{name} needs one label per image, and here are none or several.")
        extension = extensions.named("clipeval.metrics")[name]
        found = score(extension, zeroshot_classification.scores(inputs), dataset.labels, dataset.metadata)
    except MetricError as error:
        found = Metric(name, math.nan, math.nan, math.nan, n, status="failed", error=str(error))
    return TaskResult([*result.metrics, found], result.samples, result.notes)

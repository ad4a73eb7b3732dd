"""acc1, acc5 and mean per-class recall of single-label classification, whatever the scores come from."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from array_api_compat import array_namespace, device

from clipeval.errors import MetricError
from clipeval.metrics import hits_per_class, label_ranks, mean_per_class_recall, to_numpy
from clipeval.stats.intervals import balanced_interval, wilson_interval
from clipeval.tasks.base import Metric, TaskResult

_CHUNK_ELEMENTS = 1 << 22


@dataclass(frozen=True)
class Labelled:
    """Embeddings ``[n, D]`` float32 with one integer label and one id per row.

    The embeddings may be of NumPy or of another namespace of the array API (a tensor on a GPU); the labels are NumPy's.
    """

    embeddings: Any
    labels: np.ndarray
    ids: Sequence[str]

    def rows(self, chosen: np.ndarray) -> Labelled:
        """The rows where ``chosen`` ``[n]`` bool is true."""
        xp = array_namespace(self.embeddings)
        index = xp.asarray(np.flatnonzero(chosen), device=device(self.embeddings))
        embeddings = xp.take(self.embeddings, index, axis=0)
        return Labelled(embeddings, self.labels[chosen], list(itertools.compress(self.ids, chosen)))


def linear_scores(features: Any, weights: Any, bias: Any | None = None) -> Iterator[np.ndarray]:
    """``features [n, D] @ weights.T [D, K] + bias [K]`` in NumPy blocks of rows: memory does not grow with n K."""
    rows = max(1, _CHUNK_ELEMENTS // weights.shape[0])
    for start in range(0, features.shape[0], rows):
        scores = features[start : start + rows] @ weights.T
        yield to_numpy(scores if bias is None else scores + bias)


def score(blocks: Iterable[np.ndarray], classes: np.ndarray, labels: np.ndarray, ids: Sequence[str]) -> TaskResult:
    """Score single-label predictions.

    ``blocks`` are ``[some rows, K]`` scores whose rows, one block after the other, are the samples; ``classes`` is
    ``[K]``, the label each column stands for, ascending; ``labels`` is ``[n]``. Equal scores go to the lower class. A
    label that has no column counts as wrong. acc5 is skipped below 5 classes. mean_per_class_recall is over the
    classes that occur in ``labels``, as in scikit-learn; the note ``classes_without_samples`` counts the others.
    Raises MetricError when there is no sample.
    """
    if len(labels) == 0:
        raise MetricError("there is no sample to score: the split is empty.")
    columns = np.searchsorted(classes, labels)
    columns = np.where(classes[np.minimum(columns, len(classes) - 1)] == labels, columns, -1)
    ranks = np.empty(len(labels), dtype=np.int64)
    predictions = np.empty(len(labels), dtype=classes.dtype)
    start = 0
    for scores in blocks:
        rows = slice(start, start + len(scores))
        ranks[rows] = label_ranks(scores, columns[rows])
        predictions[rows] = classes[scores.argmax(axis=1)]
        start += len(scores)
    samples = {"id": np.asarray(ids), "label": labels, "prediction": predictions, "correct": ranks == 0}
    if len(classes) >= 5:
        samples["correct5"] = ranks < 5
    missing = len(classes) - len(np.intersect1d(classes, labels))
    return TaskResult(
        [
            proportion("acc1", samples["correct"]),
            _acc5(samples, len(classes)),
            _balanced(samples["correct"], labels),
        ],
        samples,
        {"classes_without_samples": missing} if missing else {},
    )


def proportion(name: str, correct: np.ndarray) -> Metric:
    """The share of ``correct`` ``[n]`` bool, with Wilson's interval."""
    hits, n = int(correct.sum()), len(correct)
    return Metric(name, hits / n, *wilson_interval(hits, n), n)


def _acc5(samples: dict[str, np.ndarray], n_classes: int) -> Metric:
    if "correct5" in samples:
        return proportion("acc5", samples["correct5"])
    reason = f"acc5 needs at least 5 classes; there are {n_classes}"
    return Metric("acc5", math.nan, math.nan, math.nan, len(samples["id"]), status="skipped", error=reason)


def _balanced(correct: np.ndarray, labels: np.ndarray) -> Metric:
    hits, counts = hits_per_class(correct, labels)
    value = mean_per_class_recall(hits, counts)
    return Metric("mean_per_class_recall", value, *balanced_interval(hits, counts), len(labels))

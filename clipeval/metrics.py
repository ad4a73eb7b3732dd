"""Array functions that the tasks share. One row per sample; a larger score is better."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from array_api_compat import array_namespace, to_device

from clipeval.errors import MetricError

_ROWS = 1 << 14
"""Embeddings at a time."""


def normalise(embeddings: Any, *, in_place: bool = False) -> Any:
    """Rows ``[n, D]`` divided by their L2 norm; ``in_place`` overwrites those given. A zero row stays zero."""
    norms = _norms(embeddings)[:, None]
    norms = array_namespace(norms).clip(norms, 1e-12, None)
    if not in_place:
        return embeddings / norms
    embeddings /= norms
    return embeddings


def _norms(embeddings: Any) -> Any:
    """L2 norms ``[n]`` of rows, by blocks of them: the squares of all would take as much memory again."""
    xp = array_namespace(embeddings)
    starts = range(0, max(embeddings.shape[0], 1), _ROWS)
    return xp.concat([xp.linalg.vector_norm(embeddings[start : start + _ROWS], axis=1) for start in starts])


def to_numpy(array: Any) -> np.ndarray:
    """A NumPy array with the values of ``array``, wherever that lives."""
    return np.asarray(to_device(array, "cpu"))


def require_finite(embeddings: Any, ids: Sequence[str] | np.ndarray, kind: str) -> None:
    """Raises MetricError that names the first sample whose embedding holds NaN or infinity.

    ``kind`` says what was embedded, for the message (``image``, ``caption``, ``prompt``).
    """
    finite = np.isfinite(to_numpy(_norms(embeddings)))
    if not finite.all():
        bad = np.flatnonzero(~finite)
        raise MetricError(
            f"{kind} '{ids[bad[0]]}': its embedding holds NaN or infinity, as do {len(bad)} of {len(finite)} in all. "
            "Check the checkpoint, or run it with --precision fp32."
        )


def label_ranks(scores: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """How many classes come before the true one: ``[n]`` int64, 0 where it is on top.

    ``scores`` is ``[n, K]``, ``columns`` the true class's column per row; -1 says that no column stands for it, which
    ranks it last. Of classes with equal scores the one with the lower column comes first, as in ``argmax``.
    """
    n_columns = scores.shape[1]
    true = scores[np.arange(len(scores)), columns][:, None]
    ties_before = (scores == true) & (np.arange(n_columns) < columns[:, None])
    ranks = np.count_nonzero(scores > true, axis=1) + np.count_nonzero(ties_before, axis=1)
    return np.where(columns < 0, n_columns, ranks)


def hits_per_class(correct: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Correct samples and samples of each class that occurs in ``labels``, in the order of the class labels."""
    _, index, counts = np.unique(labels, return_inverse=True, return_counts=True)
    return np.bincount(index, weights=correct), counts


def mean_per_class_recall(hits: np.ndarray, counts: np.ndarray) -> float:
    """Mean over classes of the share of their samples that are right; scikit-learn's ``balanced_accuracy_score``."""
    return float(np.mean(hits / counts))


def macro_f1(labels: np.ndarray, predictions: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean over the classes in ``labels`` of F1 = 2 TP / (predicted + true): ``[draws]`` float64.

    ``labels`` and ``predictions`` are ``[n]``; ``weights`` is ``[draws, n]``, how often each sample counts. A class
    that no sample of a draw has is left out of its mean; one that is only predicted has a share in no mean.
    """
    classes = np.unique(labels)

    def per_class(values: np.ndarray, chosen: np.ndarray) -> np.ndarray:
        order = chosen[np.argsort(values[chosen], kind="stable")]
        sums = np.concatenate([np.zeros((len(weights), 1)), np.cumsum(weights[:, order], axis=1)], axis=1)
        first, last = (np.searchsorted(values[order], classes, side) for side in ("left", "right"))
        return sums[:, last] - sums[:, first]

    everywhere = np.arange(len(labels))
    true, predicted = per_class(labels, everywhere), per_class(predictions, everywhere)
    right = per_class(labels, np.flatnonzero(labels == predictions))
    there = true > 0
    return np.where(there, 2 * right / np.where(there, true + predicted, 1), 0).sum(axis=1) / there.sum(axis=1)


def average_precision(relevant: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean, over the relevant samples, of the precision at their rank: ``[draws]`` float64.

    ``relevant`` is ``[n]`` bool in the order of descending score. ``weights`` is ``[draws, n]`` in the same order: how
    often each sample counts (all ones for the value itself, resampled counts for a bootstrap). Copies of a sample
    share its rank. NaN where no relevant sample counts.
    """
    at = np.flatnonzero(relevant)
    relevant_weights = weights[:, at]
    retrieved = np.cumsum(weights, axis=1)[:, at]
    precision = np.cumsum(relevant_weights, axis=1) / np.maximum(retrieved, 1)  # 0 only where the sample counts 0 times
    with np.errstate(invalid="ignore"):
        return (relevant_weights * precision).sum(axis=1) / relevant_weights.sum(axis=1)

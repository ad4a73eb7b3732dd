"""Softmax regression of many rows on many classes: scikit-learn's optimum in a fraction of the time and memory.

No array of rows x classes is made, and the rows are passed over some 50 times, not several hundred: L-BFGS works in
coordinates in which the second derivatives at zero weights are 1.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import numpy as np
from array_api_compat import array_namespace, device

from clipeval.metrics import to_numpy
from clipeval.tasks import lbfgs
from clipeval.tasks.accuracy import Labelled
from clipeval.tasks.logistic import Fitted

TOLERANCE = 1e-4
"""Of a fit that is to last."""
_ITERATIONS = 1_000
_LANES = 32
"""Stretches of rows that are summed each for itself and then together, whatever the number of threads: the sums round
alike on every machine."""
_BLOCK, _BLOCK_ON_DEVICE = 1 << 20, 1 << 25
"""Scores at a time: what stays in a core's cache, and what keeps an accelerator busy."""
_ROWS_PER_FEATURE = 32
"""Rows of which the second moments are taken: they choose coordinates, no more."""


def working_bytes(weights: int, threads: int) -> int:
    """Bytes beside the rows, where ``weights`` float64 weights and biases take so many: the sums of every lane, steps
    and changes that L-BFGS remembers with what it works on, and blocks of scores of every thread."""
    return (_LANES + 2 * lbfgs.MEMORY + 10) * weights + threads * 2 * 4 * _BLOCK


class SoftmaxRegression:
    """The rows of ``parts`` (unit embeddings), and fits to them at any C."""

    def __init__(self, parts: Sequence[Labelled], threads: int = 1, tolerance: float = TOLERANCE) -> None:
        """``threads`` of NumPy's arrays; a tensor's library has its own. A fit ends when the largest entry of the
        gradient is ``tolerance`` times that at zero weights."""
        self.classes, columns = np.unique(np.concatenate([part.labels for part in parts]), return_inverse=True)
        ends = np.cumsum([len(part.labels) for part in parts])
        self.shape = int(ends[-1]), parts[0].embeddings.shape[1], len(self.classes)
        self._parts = [
            (part.embeddings, array_namespace(part.embeddings).asarray(of_part, device=device(part.embeddings)))
            for part, of_part in zip(parts, np.split(columns, ends[:-1]), strict=True)
        ]
        self._threads = threads if isinstance(parts[0].embeddings, np.ndarray) else 1
        self._relative = tolerance
        self._lanes = self._split()
        self.passes, self._seconds = 0, 0.0
        """How often the rows were passed over, and how long that took."""

    @property
    def seconds_per_pass(self) -> float:
        """Of a pass over the rows, those that were and at least one."""
        return self._seconds / self.passes if self.tolerance and self.passes else 0.0

    @cached_property
    def tolerance(self) -> float:
        """What the largest entry of the gradient is to fall to.

        A fixed one would not do: entries at zero weights are of order 1 / (K sqrt(D)), below scikit-learn's default
        for a thousand classes, where a fit would stop before it began.
        """
        _, n_features, n_classes = self.shape
        of_weights, _ = self.gradient(np.zeros((n_classes, n_features)), np.zeros(n_classes))
        return self._relative * float(np.abs(of_weights).max())

    def _split(self) -> list[list[tuple[Any, Any]]]:
        """Lanes of blocks of rows with their columns."""
        most = _BLOCK if isinstance(self._parts[0][0], np.ndarray) else _BLOCK_ON_DEVICE
        rows = max(1, most // max(self.shape[1:]))
        blocks = [
            (x[start : start + rows], columns[start : start + rows])
            for x, columns in self._parts
            for start in range(0, x.shape[0], rows)
        ]
        per_lane = math.ceil(len(blocks) / _LANES)
        return [blocks[start : start + per_lane] for start in range(0, len(blocks), per_lane)]

    @cached_property
    def _moments(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Mean, axes and variances of rows that are spread over all."""
        n, n_features, _ = self.shape
        every = max(1, n // (_ROWS_PER_FEATURE * n_features))
        rows = np.concatenate([to_numpy(x[::every]) for x, _ in self._parts])
        mean = rows.mean(axis=0, dtype=np.float64)
        rows -= mean.astype(rows.dtype)
        variances, axes = np.linalg.eigh((rows.T @ rows).astype(np.float64) / len(rows))
        return mean, axes.astype(np.float32), np.maximum(variances, 0)

    def gradient(self, weights: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of the mean cross-entropy: ``[K, D]`` and ``[K]`` float64."""
        started = time.monotonic()
        given = self._on_device(np.ascontiguousarray(weights.T)), self._on_device(bias)
        with self._mapped() as mapped:
            sums = mapped(lambda lane: _lane_sums(lane, *given), self._lanes)
            of_weights, of_bias = next(sums)
            for more, more_bias in sums:
                of_weights += more
                of_bias += more_bias
        found = to_numpy(of_weights) / self.shape[0], to_numpy(of_bias) / self.shape[0]
        self.passes, self._seconds = self.passes + 1, self._seconds + time.monotonic() - started
        return found

    @contextmanager
    def _mapped(self) -> Iterator[Any]:
        if self._threads == 1:
            yield map
            return
        pool = ThreadPoolExecutor(self._threads)
        try:
            yield pool.map
        finally:
            pool.shutdown(cancel_futures=True)

    def fit(self, c: float, start: Fitted | None = None) -> Fitted:
        """The optimum of scikit-learn's ``LogisticRegression(C=c)``, up to the tolerance. ``start`` is another fit to
        the same classes."""
        n, n_features, n_classes = self.shape
        mean, axes, variances = self._moments
        rows = 1 if n_classes > 2 else 2  # of two classes scikit-learn has the difference of their rows
        ridge = rows / (c * n)
        scale, root = np.sqrt(variances / n_classes + ridge), math.sqrt(n_classes)

        def natural(point: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            table = point.reshape(n_classes, n_features + 1)
            weights = (table[:, :-1] / scale).astype(np.float32) @ axes.T
            return weights, table[:, -1] * root - weights @ mean

        def evaluate(point: np.ndarray) -> lbfgs.Point:
            weights, bias = natural(point)
            gradient, of_bias = self.gradient(weights, bias)
            gradient += ridge * weights
            size = max(float(np.abs(gradient).max()), float(np.abs(of_bias).max()))
            along = (gradient - of_bias[:, None] * mean).astype(np.float32) @ axes / scale
            return lbfgs.Point(point, np.column_stack([along, of_bias * root]).ravel(), size)

        first = np.zeros((n_classes, n_features + 1))
        if start is not None:
            weights, bias = (to_numpy(array) / rows for array in (start.weights, start.bias))
            first[:, :-1] = (weights @ axes) * scale
            first[:, -1] = (bias + weights @ mean) / root
        found = lbfgs.minimise(evaluate, first.ravel(), self.tolerance, _ITERATIONS)
        weights, bias = (self._on_device(rows * array) for array in natural(found.x))
        return Fitted(weights, bias, self.classes, found.size <= self.tolerance)

    def _on_device(self, array: np.ndarray) -> Any:
        x = self._parts[0][0]
        return array_namespace(x).asarray(array.astype(np.float32), device=device(x))


def _lane_sums(lane: list[tuple[Any, Any]], weights: Any, bias: Any) -> tuple[Any, Any]:
    """Over the rows of a lane, probability less truth times the row ``[K, D]``, and probability less truth ``[K]``;
    ``weights`` are ``[D, K]``."""
    xp = array_namespace(weights)
    of_weights, of_bias = 0.0, 0.0
    for x, columns in lane:
        scores = x @ weights
        scores += bias
        scores -= xp.max(scores, axis=1, keepdims=True)
        xp.exp(scores, out=scores)
        scores /= xp.sum(scores, axis=1, keepdims=True)
        scores[xp.arange(x.shape[0], device=device(x)), columns] -= 1
        of_weights = of_weights + xp.astype(scores.T @ x, xp.float64)
        of_bias = of_bias + xp.astype(xp.sum(scores, axis=0), xp.float64)
    return of_weights, of_bias

"""The linear probe of Cherti et al. 2023 (arXiv:2212.07143): softmax regression by Adam, best of nine on test."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from array_api_compat import array_namespace, device

from clipeval.tasks import accuracy
from clipeval.tasks.accuracy import Labelled
from clipeval.tasks.base import TaskResult

GRID = tuple((learning_rate, epochs) for learning_rate in (0.1, 0.01, 0.001) for epochs in (10, 20, 40))
BATCH_SIZE = 256
_BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-8


def train_best(
    train: Labelled, test: Labelled, seed: int, work: Callable[[str, int, int], None] = lambda text, done, total: None
) -> TaskResult:
    """The result of the grid point with the best accuracy on ``test``: optimistic by construction, and noted as such.

    ``train`` and ``test`` hold unit vectors. Of equal grid points the first counts. The notes list the whole grid.
    ``work`` is told which one is being trained.
    """
    classes, columns = np.unique(train.labels, return_inverse=True)
    results: list[TaskResult] = []
    for learning_rate, epochs in GRID:
        work(f"training, {len(results) + 1} of {len(GRID)} settings", len(results), len(GRID))
        weights = train_softmax(train.embeddings, columns, learning_rate, epochs, seed)
        blocks = accuracy.linear_scores(test.embeddings, weights[:, :-1], weights[:, -1])
        results.append(accuracy.score(blocks, classes, test.labels, test.ids))
    accuracies = [result.metrics[0].value for result in results]
    best = int(np.argmax(accuracies))
    notes: dict[str, object] = {
        "protocol": "cherti2023",
        "selected_on": "test",
        "learning_rate": GRID[best][0],
        "epochs": GRID[best][1],
        "batch_size": BATCH_SIZE,
        "grid": [[*point, value] for point, value in zip(GRID, accuracies, strict=True)],
    }
    return TaskResult(results[best].metrics, results[best].samples, results[best].notes | notes)


def train_softmax(x: Any, columns: np.ndarray, learning_rate: float, epochs: int, seed: int) -> Any:
    """Weights and, in the last column, bias of a softmax regression: ``[K, D + 1]`` in the namespace of ``x``.

    ``x`` is ``[n, D]`` float32, ``columns`` ``[n]`` the class of each row, 0..K-1. Adam (Kingma and Ba 2015) without
    weight decay on the mean cross-entropy of batches of 256 drawn anew each epoch, the learning rate falling to 0 by a
    cosine over all steps. Initial values are uniform within 1 / sqrt(D), as in torch.nn.Linear.
    """
    xp = array_namespace(x)
    n, n_features = x.shape
    n_classes = int(columns.max()) + 1
    generator = np.random.default_rng(seed)
    bound = 1 / math.sqrt(n_features)
    initial = generator.uniform(-bound, bound, (n_classes, n_features + 1)).astype(np.float32)
    weights = xp.asarray(initial, device=device(x))
    x = xp.concat([x, xp.ones((n, 1), dtype=x.dtype, device=device(x))], axis=1)
    targets = xp.asarray(columns, device=device(x))
    class_row = xp.arange(n_classes, device=device(x))[None, :]
    mean, square = xp.zeros_like(weights), xp.zeros_like(weights)
    batches = math.ceil(n / BATCH_SIZE)
    for step in range(epochs * batches):
        if step % batches == 0:
            order = xp.asarray(generator.permutation(n), device=device(x))
        start = step % batches * BATCH_SIZE
        rows = order[start : start + BATCH_SIZE]
        inputs = xp.take(x, rows, axis=0)
        scores = inputs @ weights.T
        likelihood = xp.exp(scores - xp.max(scores, axis=1, keepdims=True))
        likelihood /= xp.sum(likelihood, axis=1, keepdims=True)
        is_target = xp.astype(xp.take(targets, rows, axis=0)[:, None] == class_row, x.dtype)
        gradient = (likelihood - is_target).T @ inputs / rows.shape[0]
        mean = _BETA1 * mean + (1 - _BETA1) * gradient
        square = _BETA2 * square + (1 - _BETA2) * gradient**2
        rate = learning_rate * 0.5 * (1 + math.cos(math.pi * step / (epochs * batches)))
        correction1, correction2 = 1 - _BETA1 ** (step + 1), 1 - _BETA2 ** (step + 1)
        weights = weights - rate * (mean / correction1) / (xp.sqrt(square / correction2) + _EPSILON)
    return weights

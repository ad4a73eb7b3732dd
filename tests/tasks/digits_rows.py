"""scikit-learn's digits as rows of two splits, for tasks on frozen embeddings."""

from __future__ import annotations

import numpy as np
from sklearn.datasets import load_digits

from clipeval.tasks.accuracy import Labelled

ODD_LABELS = np.array([-7, 3, 4, 11, 12, 40, 41, 42, 99, 1000])


def labelled(x, y):
    return Labelled(np.asarray(x, np.float32), np.asarray(y), [f"image-{row}" for row in range(len(y))])


def splits(train: int, test: int, less: float = 0.0):
    """``train`` and ``test`` rows that do not overlap, with odd labels; ``less`` is taken from all pixels."""
    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))
    x, y = data.data[order] - less, ODD_LABELS[data.target[order]]
    return labelled(x[:train], y[:train]), labelled(x[train : train + test], y[train : train + test])


def values(result):
    return {metric.name: metric.value for metric in result.metrics}

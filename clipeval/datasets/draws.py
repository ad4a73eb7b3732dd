"""Draws of training samples, as functions of the labels: k per class, and a part to hold out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from clipeval.errors import DataError

VALIDATION_SHARE = 0.2
_HOLD_OUT_SEED = 0


def shot_indices(labels: np.ndarray, k: int, seed: int, class_names: Sequence[str] = ()) -> np.ndarray:
    """``k`` rows of each class, ascending: a function of the labels, ``k`` and ``seed`` alone.

    The rows of a smaller ``k`` are among those of a larger one. Raises DataError for a class with fewer than ``k``.
    """
    classes, counts = np.unique(labels, return_counts=True)
    if len(short := np.flatnonzero(counts < k)):
        label = int(classes[short[0]])
        name = f" ('{class_names[label]}')" if 0 <= label < len(class_names) else ""
        raise DataError(
            f"class {label}{name} has {counts[short[0]]} training images, fewer than the {k} of a {k}-shot probe "
            f"({len(short)} of {len(classes)} classes have too few). Choose at most {counts.min()} shots."
        )
    return np.flatnonzero(_place_in_class(labels, seed) < k)


def hold_out(labels: np.ndarray, share: float = VALIDATION_SHARE) -> np.ndarray:
    """Which rows to make choices on, ``[n]`` bool: this share of each class, at least one, none of a class of one.

    A function of the labels alone, so that it is the same for every checkpoint.
    """
    _, index, counts = np.unique(labels, return_inverse=True, return_counts=True)
    held = np.where(counts > 1, np.maximum(np.round(counts * share), 1), 0)
    return _place_in_class(labels, _HOLD_OUT_SEED) < held[index]


def sample(labels: np.ndarray, share: float, least: int, held: np.ndarray) -> np.ndarray:
    """Which rows stand for those that are not ``held`` (by ``hold_out``, or none): ``[n]`` bool, this share of each
    class and at least ``least`` where there are as many. A function of labels and ``held`` alone."""
    _, index, counts = np.unique(labels, return_inverse=True, return_counts=True)
    taken = np.bincount(index, weights=held).astype(np.int64)
    last = taken + np.maximum(np.round(counts * share), least)
    return ~held & (_place_in_class(labels, _HOLD_OUT_SEED) < last[index])


def _place_in_class(labels: np.ndarray, seed: int) -> np.ndarray:
    """The place of each row among the rows of its class, in an order drawn by ``seed``: ``[n]``."""
    drawn = np.random.RandomState(seed).permutation(len(labels))  # this generator's numbers never change
    by_class = drawn[np.argsort(labels[drawn], kind="stable")]
    _, starts, counts = np.unique(labels[by_class], return_index=True, return_counts=True)
    place = np.empty(len(labels), dtype=np.int64)
    place[by_class] = np.arange(len(labels)) - np.repeat(starts, counts)
    return place

"""The per-sample outcomes of one metric of one checkpoint, and how its value comes of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from clipeval import metrics
from clipeval.vocabulary import Metric, metric

if TYPE_CHECKING:
    import pandas as pd

_AGREE = 1e-6


class NotPairedError(Exception):
    """No test is possible; the message says why."""


class OtherSamplesError(NotPairedError):
    """The two checkpoints were measured on different samples."""


@dataclass(frozen=True, eq=False)
class Scored:
    """The outcomes of one metric of one checkpoint: ``outcomes`` ``[n]`` 0/1, of shares between 0 and 1, of F1 the
    predicted classes, or ``[n, K]`` scores where it is one of ranks; ``labels`` ``[n]``, of groups their numbers, or
    ``[n, K]`` bool, None where there are none; ``ids`` ``[n]``, no two alike."""

    metric: Metric
    ids: pd.Index
    outcomes: np.ndarray
    labels: np.ndarray | None

    @cached_property
    def images(self) -> tuple[np.ndarray, np.ndarray]:
        """The ids of the images, sorted, and for each of ``[n]`` captions the number of its own. A caption's id is the
        image's, ``#`` and a number."""
        return np.unique(self.ids.str.replace(r"#\d+$", "", regex=True).to_numpy(str), return_inverse=True)

    def ordered(self, order: np.ndarray) -> Scored:
        """The samples at ``order``."""
        labels = None if self.labels is None else self.labels[order]
        return Scored(self.metric, self.ids[order], self.outcomes[order], labels)


def scored(name: str, frame: pd.DataFrame, value: float) -> Scored:
    """The outcomes of the metric ``name`` in the per-sample file ``frame``, whose value in the table is ``value``.

    Raises NotPairedError where there are none, or where they give another value than the table has, and
    OtherSamplesError for repeated sample ids.
    """
    known = metric(name)
    if "id" not in frame or (known.direction and "direction" not in frame):
        raise NotPairedError(f"there are no per-sample outcomes of {name}")
    if known.direction:
        frame = frame[(frame["direction"] == known.direction).to_numpy(bool)]
    frame = frame.set_index(frame["id"].astype(str))
    if not frame.index.is_unique:
        raise OtherSamplesError("sample ids are repeated")
    try:
        found = _ranked(known, frame) if known.scored == "ranks" else _outcomes(known, frame)
    except (TypeError, ValueError) as error:
        raise NotPairedError(f"the per-sample outcomes of {name} are not readable: {error}") from error
    mean = value_of(found)
    if not abs(mean - value) <= _AGREE:  # NaN does not agree either
        raise NotPairedError(f"the per-sample outcomes give {mean:.6f}, the table says {value:.6f}")
    return found


def _outcomes(known: Metric, frame: pd.DataFrame) -> Scored:
    told_apart = known.group or "label"
    needed = {known.column, *([told_apart] if known.scored in ("classes", "groups", "f1") else [])}
    if not known.column or not needed <= set(frame):
        raise NotPairedError(f"there are no per-sample outcomes of {known.name}")
    if known.scored == "shares":  # a sample that the metric is not about has none
        frame = frame[frame[known.column].notna().to_numpy(bool)]
    hits = frame[known.column].to_numpy(np.float64)
    if known.scored == "shares" and not ((hits >= 0) & (hits <= 1)).all():
        raise NotPairedError(f"the per-sample outcomes of {known.name} are not all between 0 and 1")
    if known.scored not in ("shares", "f1") and not np.isin(hits, (0, 1)).all():
        raise NotPairedError(f"the per-sample outcomes of {known.name} are not all 0 or 1")
    labels = frame[told_apart].to_numpy() if told_apart in frame else None
    if labels is not None and labels.dtype.kind not in "biuf":
        labels = labels.astype(str)
    return Scored(known, frame.index, hits, labels)


def _ranked(known: Metric, frame: pd.DataFrame) -> Scored:
    if not {"labels", "scores"} <= set(frame):
        raise NotPairedError("there are no scores per sample")
    scores, labels = (np.stack(list(frame[name])) for name in ("scores", "labels"))
    if scores.ndim != 2 or scores.shape != labels.shape:
        raise ValueError(f"scores {scores.shape} and labels {labels.shape} do not belong together")
    return Scored(known, frame.index, scores.astype(np.float64), labels.astype(bool))


def value_of(side: Scored) -> float:
    """The metric; NaN without samples."""
    if not len(side.ids):
        return float("nan")
    if side.metric.scored == "ranks":
        return float(mean_precisions(side, np.ones((1, len(side.ids))))[0])
    if side.metric.scored == "f1":
        return float(metrics.macro_f1(labels_of(side), side.outcomes, np.ones((1, len(side.ids))))[0])
    if side.metric.scored == "groups":
        hits, counts = metrics.hits_per_class(side.outcomes, labels_of(side))
        return float((hits / counts).min())
    return float(np.mean(side.outcomes * weights(side)))


def weights(side: Scored) -> np.ndarray:
    """Weights ``[n]`` of mean 1 with which the mean over samples is the metric."""
    if side.metric.scored != "classes" or side.labels is None:
        return np.ones(len(side.ids))
    _, index, counts = np.unique(side.labels, return_inverse=True, return_counts=True)
    return len(index) / (len(counts) * counts[index])


def mean_precisions(side: Scored, draws: np.ndarray) -> np.ndarray:
    """``[draws]``: mean average precision under weights ``draws`` ``[draws, n]``."""
    assert side.labels is not None
    classes = np.flatnonzero(side.labels.any(axis=0))
    order = [np.argsort(-side.outcomes[:, k], kind="stable") for k in classes]
    found = np.array(
        [metrics.average_precision(side.labels[o, k], draws[:, o]) for k, o in zip(classes, order, strict=True)]
    ).reshape(len(classes), len(draws))
    defined = ~np.isnan(found)  # a draw may hold no positive of a class
    return np.where(defined, found, 0).sum(axis=0) / np.maximum(defined.sum(axis=0), 1)


def labels_of(side: Scored) -> np.ndarray:
    """The labels of a metric that has some."""
    assert side.labels is not None
    return side.labels

"""Two checkpoints on the same samples: how much worse the second is, and how sure that is."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from clipeval import metrics
from clipeval.stats import intervals as stats

if TYPE_CHECKING:
    import pandas as pd

DRAWS = 9_999
_AGREE = 1e-6
MCNEMAR, BOOTSTRAP = "exact McNemar", "paired bootstrap"
_HITS = {
    "acc1": "correct",
    "acc5": "correct5",
    "mean_per_class_recall": "correct",
    "text_acc": "text_correct",
    "image_acc": "image_correct",
    "acc": "correct",
}
_RECALL = re.compile(r"(image|text)_retrieval_recall@(\d+)")


class NotPairedError(Exception):
    """No test is possible; the message says why."""


class OtherSamplesError(NotPairedError):
    """The two checkpoints were measured on different samples."""


@dataclass(frozen=True)
class Paired:
    """A paired comparison. ``loss`` is how much worse the current checkpoint is, in the metric's own unit.

    ``p`` is one-sided: the chance of such a loss if there was none to find. ``discordant`` counts the units (samples,
    or images with several captions) that differ. ``draw(seed)`` gives ``[DRAWS]`` bootstrapped losses.
    """

    loss: float
    p: float
    test: str
    discordant: int
    draw: Callable[[int], np.ndarray]


def paired(metric: str, baseline: pd.DataFrame, current: pd.DataFrame, values: tuple[float, float]) -> Paired:
    """Compare per-sample outcomes, in any order, of one metric.

    ``values`` are what the tables say of baseline and current; outcomes of another measurement than the tables' are
    refused. 0/1 outcomes of independent samples are compared by McNemar's exact test. Other metrics by a bootstrap
    over samples, the same for both: mean per-class recall, mean average precision, and recall of captions, which is
    resampled by image as the captions of an image are not independent. Raises NotPairedError and OtherSamplesError.
    """
    recall = _RECALL.fullmatch(metric)
    if recall:
        direction = "text_to_image" if recall[1] == "image" else "image_to_text"
        baseline, current = (side[side["direction"] == direction] for side in (baseline, current))
    baseline, current = _aligned(baseline, current)
    if metric == "mean_average_precision":
        return _average_precision(baseline, current, values)
    column = f"hit@{recall[2]}" if recall else _HITS.get(metric, "")
    if column not in baseline or column not in current:
        raise NotPairedError(f"there are no per-sample outcomes of {metric}")
    hits = [side[column].to_numpy(np.float64) for side in (baseline, current)]
    weights = (
        _class_weights(baseline["label"].to_numpy()) if metric == "mean_per_class_recall" else np.ones(len(hits[0]))
    )
    _require_values([float(np.mean(hit * weights)) for hit in hits], values)
    units = (hits[0] - hits[1]) * weights
    lost, won = int((units > 0).sum()), int((units < 0).sum())
    if metric == "mean_per_class_recall":
        return _bootstrapped(float(units.mean()), lost + won, lambda seed: _resampled(units, seed))
    if recall and recall[1] == "image" and (by_image := _by_image(units, baseline.index)) is not None:
        return _bootstrapped(float(units.mean()), lost + won, lambda seed: _resampled(by_image, seed))
    p = stats.mcnemar_p(lost, won)
    return Paired(float(units.mean()), p, MCNEMAR, lost + won, lambda seed: _resampled(units, seed))


def average(parts: list[Paired]) -> Paired:
    """The mean of a metric over data sets: their bootstraps, independent of each other, averaged draw by draw."""
    loss = float(np.mean([part.loss for part in parts]))
    discordant = sum(part.discordant for part in parts)

    def draw(seed: int) -> np.ndarray:
        return np.mean([part.draw(seed + number) for number, part in enumerate(parts)], axis=0)

    return _bootstrapped(loss, discordant, draw)


def _aligned(baseline: pd.DataFrame, current: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Both by sample id, in the same order."""
    baseline, current = baseline.set_index("id"), current.set_index("id")
    if not (baseline.index.is_unique and current.index.is_unique):
        raise OtherSamplesError("sample ids are repeated")
    missing, new = len(baseline.index.difference(current.index)), len(current.index.difference(baseline.index))
    if missing or new:
        raise OtherSamplesError(f"sample ids: {missing} of {len(baseline)} of the baseline are not here, {new} are new")
    current = current.loc[baseline.index]
    if "label" in baseline and "label" in current and (baseline["label"] != current["label"]).any():
        raise OtherSamplesError("samples of the same id have other labels")
    return baseline, current


def _class_weights(labels: np.ndarray) -> np.ndarray:
    """Weights ``[n]`` of mean 1 with which the mean over samples is the mean over classes."""
    _, index, counts = np.unique(labels, return_inverse=True, return_counts=True)
    return len(labels) / (len(counts) * counts[index])


def _by_image(losses: np.ndarray, caption_ids: pd.Index) -> np.ndarray | None:
    """Losses ``[captions]`` to one value per image whose mean is the same: the ratio of sums, linearised (Cochran 1977,
    Sampling Techniques, section 6.3). An id is the image's, ``#`` and the caption's number. None where each image has
    one caption."""
    images = np.array([str(name).rpartition("#")[0] for name in caption_ids])
    _, index = np.unique(images, return_inverse=True)
    sums, counts = np.bincount(index, weights=losses), np.bincount(index)
    if len(counts) == len(losses):
        return None
    return np.round(losses.mean() + (sums - losses.mean() * counts) / counts.mean(), 12)


def _bootstrapped(loss: float, discordant: int, draw: Callable[[int], np.ndarray]) -> Paired:
    p = stats.bootstrap_p(draw(0), loss, discordant) if loss > 0 else 1.0
    return Paired(loss, p, BOOTSTRAP, discordant, draw)


def _resampled(units: np.ndarray, seed: int) -> np.ndarray:
    return stats.resampled_means(units, seed, DRAWS)


def _average_precision(baseline: pd.DataFrame, current: pd.DataFrame, values: tuple[float, float]) -> Paired:
    if not {"labels", "scores"} <= set(baseline) & set(current):
        raise NotPairedError("there are no scores per sample")
    labels = np.stack(list(baseline["labels"])).astype(bool)
    scores = [np.stack(list(side["scores"])) for side in (baseline, current)]
    classes = np.flatnonzero(labels.any(axis=0))
    order = [[np.argsort(-score[:, k], kind="stable") for k in classes] for score in scores]

    def means(weights: np.ndarray) -> np.ndarray:
        """``[2, draws]``: mean average precision of both under ``weights`` ``[draws, n]``."""
        precision = [
            [metrics.average_precision(labels[o, k], weights[:, o]) for k, o in zip(classes, side, strict=True)]
            for side in order
        ]
        defined = ~np.isnan(precision)  # a draw may hold no positive of a class
        return np.where(defined, precision, 0).sum(axis=1) / np.maximum(defined.sum(axis=1), 1)

    found = means(np.ones((1, len(labels))))[:, 0]
    _require_values(found.tolist(), values)
    discordant = int((scores[0] != scores[1]).any(axis=1).sum())

    def draw(seed: int) -> np.ndarray:
        blocks = [means(weights) for weights in stats.bootstrap_weights(len(labels), seed, DRAWS)]
        before, now = np.concatenate(blocks, axis=1)
        return before - now

    return _bootstrapped(float(found[0] - found[1]), discordant, draw)


def _require_values(found: list[float], values: tuple[float, float]) -> None:
    for whose, outcome, value in zip(("baseline's", "current"), found, values, strict=True):
        if abs(outcome - value) > _AGREE:
            raise NotPairedError(f"the {whose} per-sample outcomes give {outcome:.6f}, its table says {value:.6f}")

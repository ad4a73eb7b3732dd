"""Association of images with a cue: which of the candidates belong to it? (WinoGAViL, Bitton et al. 2022)"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from clipeval.errors import MetricError
from clipeval.metrics import normalise, require_finite
from clipeval.stats.intervals import mean_interval
from clipeval.tasks.base import Inputs, Metric, TaskResult
from clipeval.tasks.texts import distinct, embedded

if TYPE_CHECKING:
    from clipeval.datasets.base import Dataset

_SEED = 0
_FEW, _MANY = 6, 10
"""Candidates of a row: at most so many, and at least so many."""


def texts(dataset: Dataset) -> list[str]:
    """The prompts of all cues, each distinct one once."""
    return distinct([map(prompt, _cues(dataset))])


def prompt(cue: str) -> str:
    """``A cat``, ``An owl``: the cue in lower case, as in the authors' code, whatever it is pronounced like."""
    lower = cue.lower()
    return f"{'An' if lower.startswith(('a', 'e', 'i', 'o', 'u')) else 'A'} {lower}"


def run(inputs: Inputs) -> TaskResult:
    """Measure ``inputs.dataset``. Raises MetricError."""
    dataset = inputs.dataset
    prompts = [prompt(cue) for cue in _cues(dataset)]
    assert dataset.associated is not None
    assert dataset.groups is not None
    embeddings, [of_image] = embedded(inputs, [prompts], "cue")
    return evaluate(inputs.images(), embeddings, of_image, dataset.associated, dataset.groups, dataset.ids)


def _cues(dataset: Dataset) -> Sequence[str]:
    if dataset.cues is None:
        raise MetricError(f"{dataset.name}: it has no cues with candidate images, which association needs.")
    return dataset.cues


def evaluate(
    image_embeddings: np.ndarray,
    text_embeddings: np.ndarray,
    cues: np.ndarray,
    associated: np.ndarray,
    groups: np.ndarray,
    ids: Sequence[str],
) -> TaskResult:
    """Jaccard scores by cosine in float32.

    ``image_embeddings`` is ``[n, D]``, ``text_embeddings`` ``[T, D]``; ``cues`` ``[n]`` is the row of each image's cue
    there, ``associated`` ``[n]`` bool whether the image belongs to it, ``groups`` ``[n]`` the item of each image. Of an
    item with k associations the k closest images are predicted, of equally close ones the first; its score is
    |prediction and associations| / |prediction or associations|. ``avg_jaccard_score`` is the mean over items,
    ``jaccard_score_5-6`` over those of at most 6 candidates, ``jaccard_score_10-12`` of at least 10, each with its own
    n; one without items is skipped. The id of an item is that of its first image. Raises MetricError.
    """
    if len(ids) == 0:
        raise MetricError("there is no image to score: the split is empty.")
    require_finite(image_embeddings, ids, "image")
    scores = np.sum(normalise(image_embeddings) * normalise(text_embeddings)[cues], axis=1)
    _, first, sizes = np.unique(groups, return_index=True, return_counts=True)
    members = np.split(np.argsort(groups, kind="stable"), np.cumsum(sizes)[:-1])
    jaccard = np.array([_jaccard(scores[rows], associated[rows]) for rows in members])
    samples = {"id": np.asarray(ids)[first], "candidates": sizes, "jaccard": jaccard}
    metrics = [_mean("avg_jaccard_score", jaccard, "")]
    for name, chosen, wanted in (
        ("5-6", sizes <= _FEW, f"of at most {_FEW} candidates"),
        ("10-12", sizes >= _MANY, f"of at least {_MANY} candidates"),
    ):
        samples[f"jaccard_{name}"] = np.where(chosen, jaccard, np.nan)
        metrics.append(_mean(f"jaccard_score_{name}", jaccard[chosen], wanted))
    return TaskResult(metrics, samples)


def _jaccard(scores: np.ndarray, associated: np.ndarray) -> float:
    count = int(associated.sum())
    if count == 0:
        raise MetricError("a cue has no association among its candidates, so there is nothing to find.")
    right = int(associated[np.argsort(-scores, kind="stable")[:count]].sum())
    return right / (2 * count - right)


def _mean(name: str, jaccard: np.ndarray, wanted: str) -> Metric:
    if len(jaccard) == 0:
        reason = f"{name} is over items {wanted}, and there are none"
        return Metric(name, math.nan, math.nan, math.nan, 0, status="skipped", error=reason)
    return Metric(name, float(jaccard.mean()), *mean_interval(jaccard, _SEED), len(jaccard))

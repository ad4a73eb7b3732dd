"""Image-caption selection: choose the true caption among similar wrong ones (SugarCrepe, Winoground)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from clipeval.errors import MetricError
from clipeval.metrics import normalise, require_finite
from clipeval.stats.intervals import wilson_interval
from clipeval.tasks.base import Inputs, Metric, TaskResult
from clipeval.tasks.texts import distinct, embedded

if TYPE_CHECKING:
    from clipeval.datasets.base import Dataset


def texts(dataset: Dataset) -> list[str]:
    """The candidate captions of all images, each distinct one once."""
    return distinct(_choices(dataset))


def run(inputs: Inputs) -> TaskResult:
    """Measure ``inputs.dataset``. Raises MetricError."""
    dataset = inputs.dataset
    embeddings, choices = embedded(inputs, _choices(dataset), "caption")
    return evaluate(inputs.images(), embeddings, choices, dataset.groups, dataset.ids)


def _choices(dataset: Dataset) -> Sequence[tuple[str, ...]]:
    if dataset.choices is None:
        raise MetricError(f"{dataset.name}: it has no candidate captions, which image-caption selection needs.")
    return dataset.choices


def evaluate(
    image_embeddings: np.ndarray,
    text_embeddings: np.ndarray,
    choices: Sequence[np.ndarray],
    groups: np.ndarray | None,
    ids: Sequence[str],
) -> TaskResult:
    """text_acc, and for items of several images image_acc and acc, by cosine in float32.

    ``image_embeddings`` is ``[n, D]``, ``text_embeddings`` ``[T, D]``; ``choices[i]`` holds the rows of image i's
    candidate captions, the true one first; ``groups`` is ``[n]``, the item each image belongs to (None: an item per
    image). For each item (Thrush et al. 2022; names as in CLIP_benchmark):

    - text_acc: each image is closer to its true caption than to its other candidates;
    - image_acc: each true caption is closer to its image than to the item's other images;
    - acc: both.

    With one image per item image_acc is always 1 and acc equals text_acc, so there only text_acc is given. Closer is
    strict: a tie counts as wrong. (CLIP_benchmark lets ties go to the true caption.) The note ``ties`` counts the
    items that a tie alone made wrong. The id of an item is that of its first image. Raises MetricError.
    """
    if len(ids) == 0:
        raise MetricError("there is no image to score: the split is empty.")
    require_finite(image_embeddings, ids, "image")
    images, captions = normalise(image_embeddings), normalise(text_embeddings)
    items = np.arange(len(ids)) if groups is None else groups
    _, first, item = np.unique(items, return_index=True, return_inverse=True)
    margins = {"text": _over_items(_text_margins(images, captions, choices), item)}
    if len(first) < len(ids):
        true_captions = captions[[rows[0] for rows in choices]]
        margins["image"] = _over_items(_image_margins(images, true_captions, item), item)
        margins[""] = np.minimum(margins["text"], margins["image"])
    samples = {"id": np.asarray(ids)[first]}
    metrics = []
    for kind, margin in margins.items():
        correct = margin > 0
        samples[f"{kind}_correct".lstrip("_")] = correct
        hits, n = int(correct.sum()), len(correct)
        metrics.append(Metric(f"{kind}_acc".lstrip("_"), hits / n, *wilson_interval(hits, n), n))
    ties = {metric.name: int((margin == 0).sum()) for metric, margin in zip(metrics, margins.values(), strict=True)}
    return TaskResult(metrics, samples, {"ties": ties})


def _text_margins(images: np.ndarray, captions: np.ndarray, choices: Sequence[np.ndarray]) -> np.ndarray:
    """Per image, by how much its true caption is ahead of its closest other candidate: ``[n]``."""
    return np.array([_ahead(captions[rows], image, 0) for image, rows in zip(images, choices, strict=True)])


def _image_margins(images: np.ndarray, true_captions: np.ndarray, item: np.ndarray) -> np.ndarray:
    """Per image, by how much it is ahead of its item's other images for its true caption: ``[n]``."""
    margins = np.empty(len(images))
    for members in np.split(np.argsort(item, kind="stable"), np.cumsum(np.bincount(item))[:-1]):
        for place, row in enumerate(members):
            margins[row] = _ahead(images[members], true_captions[row], place)
    return margins


def _ahead(candidates: np.ndarray, query: np.ndarray, true: int) -> float:
    scores = (candidates * query).sum(axis=1)  # not a matrix product: equal rows must tie to the last bit
    others = np.delete(scores, true)
    return float(scores[true] - others.max()) if len(others) else np.inf


def _over_items(margins: np.ndarray, item: np.ndarray) -> np.ndarray:
    smallest = np.full(item.max() + 1, np.inf)
    np.minimum.at(smallest, item, margins)
    return smallest

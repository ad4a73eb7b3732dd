"""Zero-shot classification: an image belongs to the class whose prompts it is closest to (Radford et al. 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from clipeval.datasets.objectives import by_objective
from clipeval.errors import MetricError
from clipeval.metrics import average_precision, normalise, require_finite
from clipeval.stats.intervals import bootstrap_weights, reflected_interval
from clipeval.tasks import accuracy, faces
from clipeval.tasks.base import Inputs, Metric, TaskResult
from clipeval.tasks.texts import distinct, embedded

if TYPE_CHECKING:
    from clipeval.datasets.base import Dataset

_BOOTSTRAP_SEED = 0


def texts(dataset: Dataset) -> list[str]:
    """The prompts of all classes, each distinct one once."""
    return distinct(_prompts(dataset))


def run(inputs: Inputs) -> TaskResult:
    """Classify ``inputs.dataset``. Raises MetricError."""
    dataset = inputs.dataset
    objectives = by_objective(dataset.prompts)
    if dataset.labels is None and not objectives:
        raise MetricError(f"{dataset.name}: it has no labels, which zero-shot classification needs.")
    vectors = _classifier(inputs)
    if objectives:
        ends = np.cumsum([len(prompts.classes) for prompts in objectives.values()])[:-1]
        of_objectives = dict(zip(objectives, np.split(vectors, ends), strict=True))
        return faces.evaluate(inputs.images(), of_objectives, dataset.metadata, dataset.ids)
    assert dataset.labels is not None
    return evaluate(inputs.images(), vectors, dataset.labels, dataset.ids)


def scores(inputs: Inputs) -> np.ndarray:
    """The cosine of each image of ``inputs.dataset`` with each class, ``[n, K]`` float32. Raises MetricError."""
    return np.concatenate(list(accuracy.linear_scores(normalise(inputs.images()), _classifier(inputs))))


def _classifier(inputs: Inputs) -> np.ndarray:
    """One unit vector per class of ``inputs.dataset``."""
    return class_vectors(*embedded(inputs, _prompts(inputs.dataset), "prompt"))


def _prompts(dataset: Dataset) -> list[list[str]]:
    if dataset.prompts is None:
        raise MetricError(f"{dataset.name}: it has no class names, which zero-shot classification needs.")
    objectives = by_objective(dataset.prompts)
    return [texts for prompts in objectives.values() for texts in prompts.texts()] or dataset.prompts.texts()


def class_vectors(text_embeddings: np.ndarray, prompt_index: Sequence[np.ndarray]) -> np.ndarray:
    """One unit vector per class, ``[K, D]``: its prompts' embeddings are normalised, averaged and normalised again.

    ``text_embeddings`` is ``[T, D]``; ``prompt_index[k]`` holds the rows that are prompts of class k.
    """
    unit = normalise(text_embeddings)
    return normalise(np.stack([unit[rows].mean(axis=0) for rows in prompt_index]))


def evaluate(
    image_embeddings: np.ndarray, class_vectors: np.ndarray, labels: np.ndarray, ids: Sequence[str]
) -> TaskResult:
    """Score images ``[n, D]`` against class vectors ``[K, D]`` by their cosine, in float32.

    Labels ``[n]`` of 0..K-1 give acc1, acc5 and mean_per_class_recall (``accuracy.score``). Labels ``[n, K]`` bool
    (several classes per image) give mean_average_precision. Raises MetricError for an embedding that is not finite
    and for labels that do not fit the class list.
    """
    require_finite(image_embeddings, ids, "image")
    images = normalise(image_embeddings)
    if labels.ndim == 2:
        return _multi_label(images @ class_vectors.T, labels, ids)
    n_classes = len(class_vectors)
    outside = np.flatnonzero((labels < 0) | (labels >= n_classes))
    if len(outside):
        first = outside[0]
        raise MetricError(
            f"image '{ids[first]}' has label {labels[first]}, but the class list has {n_classes} names "
            f"(labels 0 to {n_classes - 1}). Give a class list that fits the labels."
        )
    return accuracy.score(accuracy.linear_scores(images, class_vectors), np.arange(n_classes), labels, ids)


def _multi_label(scores: np.ndarray, labels: np.ndarray, ids: Sequence[str]) -> TaskResult:
    """Mean over classes of the average precision of ranking all images by the class's score.

    A class without a positive image has no average precision: it is left out and named in the notes. (CLIP_benchmark
    counts it as 0.) The interval is a reflected bootstrap over images, the same draws for all classes.
    """
    if labels.shape != scores.shape:
        raise MetricError(
            f"the labels name {labels.shape[1]} classes per image, but the class list has {scores.shape[1]} names. "
            "Give a class list that fits the labels."
        )
    without = np.flatnonzero(~labels.any(axis=0))
    classes = np.flatnonzero(labels.any(axis=0))
    if len(classes) == 0:
        raise MetricError("mean_average_precision is not defined: no image has any of the classes.")
    n = len(scores)
    order = {k: np.argsort(-scores[:, k], kind="stable") for k in classes}

    def mean_over_classes(weights: np.ndarray) -> np.ndarray:
        per_class = np.stack([average_precision(labels[order[k], k], weights[:, order[k]]) for k in classes])
        defined = ~np.isnan(per_class)  # a draw may hold no positive of a class
        with np.errstate(invalid="ignore"):
            return np.where(defined, per_class, 0).sum(axis=0) / defined.sum(axis=0)

    value = float(mean_over_classes(np.ones((1, n)))[0])
    draws = np.concatenate([mean_over_classes(weights) for weights in bootstrap_weights(n, _BOOTSTRAP_SEED)])
    best = scores.argmax(axis=1)
    samples = {"id": np.asarray(ids), "prediction": best, "correct": labels[np.arange(n), best]}
    samples |= {"labels": labels, "scores": scores}  # a paired test of average precision needs the whole ranking
    notes: dict[str, object] = {"classes_without_positives": without.tolist()} if len(without) else {}
    return TaskResult([Metric("mean_average_precision", value, *reflected_interval(value, draws), n)], samples, notes)

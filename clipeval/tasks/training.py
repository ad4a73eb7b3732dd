"""What tasks on frozen image embeddings train on: all labelled images of the training split, or k per class."""

from __future__ import annotations

import numpy as np

from clipeval import digest
from clipeval.datasets.draws import shot_indices
from clipeval.errors import DataError, MetricError
from clipeval.tasks.accuracy import Labelled
from clipeval.tasks.base import Inputs


def training_rows(inputs: Inputs) -> tuple[Labelled, dict[str, object]]:
    """The training split of ``inputs``, or ``inputs.shots`` images per class of it, and what to note of the draw. The
    array is the caller's own.

    Raises DataError and MetricError.
    """
    train = inputs.split("train")
    if train is None:
        raise DataError(f"{inputs.dataset.name}: it has no training split, which this task needs.")
    if inputs.shots is None:
        return taken(train), {}
    classes = train.dataset.prompts.classes if train.dataset.prompts else ()
    rows = shot_indices(_labels(train), inputs.shots, inputs.seed, classes)
    return labelled(train, rows), {"train_rows_sha256": digest.of_value(rows.tolist())}


def taken(inputs: Inputs) -> Labelled:
    """All image embeddings as the caller's own, with labels and ids. Raises MetricError."""
    return Labelled(inputs.on_device(inputs.take_images()), _labels(inputs), inputs.dataset.ids)


def labelled(inputs: Inputs, rows: np.ndarray | None = None) -> Labelled:
    """The image embeddings, labels and ids at ``rows`` (None: of all images). Raises MetricError."""
    labels, ids = _labels(inputs), inputs.dataset.ids
    embeddings = inputs.on_device(inputs.images(rows))
    if rows is None:
        return Labelled(embeddings, labels, ids)
    return Labelled(embeddings, labels[rows], [ids[row] for row in rows])


def _labels(inputs: Inputs) -> np.ndarray:
    dataset = inputs.dataset
    if dataset.labels is None or dataset.labels.ndim != 1:
        raise MetricError(f"{dataset.name} ({dataset.split}): this task needs one label per image.")
    return dataset.labels

"""k-nearest-neighbour probe: an image belongs to the class of the training images that it is closest to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from clipeval.errors import UsageError
from clipeval.metrics import normalise, require_finite, to_numpy
from clipeval.tasks import accuracy
from clipeval.tasks.accuracy import Labelled
from clipeval.tasks.base import Inputs, TaskResult
from clipeval.tasks.training import labelled, training_rows

if TYPE_CHECKING:
    from clipeval.config import KnnProbeEntry
    from clipeval.datasets.base import Dataset

TEMPERATURE = 0.07
"""Of the votes: the weight of a neighbour is exp(cosine / temperature) (Wu et al. 2018; Caron et al. 2021)."""
_BLOCK = 1 << 22
"""Numbers of neighbours' embeddings that are compared at a time."""


def texts(dataset: Dataset) -> list[str]:
    """A probe reads no text."""
    return []


def protocol(settings: KnnProbeEntry) -> str:
    """``default``, or how the neighbours vote and how many do: ``majority k=5``."""
    default = type(settings)()
    if (settings.protocol, settings.k) == (default.protocol, default.k):
        return "default"
    return f"{settings.protocol} k={settings.k}"


def run(inputs: Inputs) -> TaskResult:
    """Score ``inputs.dataset`` by its neighbours in the ``train`` split. Raises DataError and MetricError."""
    test = labelled(inputs)
    train, notes = training_rows(inputs)
    vote, k = _parsed(inputs.protocol)
    result = evaluate(train, test, k=k, weighted=vote == "default")
    return TaskResult(result.metrics, result.samples, result.notes | notes)


def _parsed(name: str) -> tuple[str, int]:
    from clipeval.config import KnnProbeEntry

    vote, _, k = name.partition(" k=")
    if vote not in ("default", "majority"):
        raise UsageError(f"knn_probe: '{name}' is not a protocol of it.")
    return vote, int(k) if k else KnnProbeEntry().k


def evaluate(train: Labelled, test: Labelled, *, k: int = 20, weighted: bool = True) -> TaskResult:
    """acc1, acc5 and mean_per_class_recall of ``test`` by the votes of the ``k`` closest rows of ``train``, or of all
    where there are fewer.

    Close is a large cosine, in an exact search. A vote counts exp(cosine / 0.07), as in DINO (Caron et al. 2021), or
    without ``weighted`` 1. Equal rows have equal cosines to the last bit, and of equally close ones the earlier counts;
    of classes with equal votes the lower one is chosen. Labels are any integers. The note ``neighbours`` says how many
    voted. Raises MetricError for an embedding that is not finite.
    """
    for split in (train, test):
        require_finite(split.embeddings, split.ids, "image")
    candidates, queries = (normalise(to_numpy(split.embeddings)) for split in (train, test))
    classes, columns = np.unique(train.labels, return_inverse=True)
    k = min(k, len(candidates))
    blocks = _votes(queries, candidates, columns, len(classes), k, weighted)
    result = accuracy.score(blocks, classes, test.labels, test.ids)
    return TaskResult(result.metrics, result.samples, result.notes | {"neighbours": k})


def _votes(
    queries: np.ndarray, candidates: np.ndarray, columns: np.ndarray, n_classes: int, k: int, weighted: bool
) -> Iterator[np.ndarray]:
    """Blocks ``[some rows, n_classes]`` of the votes for each class."""
    import faiss

    looked_at = min(2 * k, len(candidates))  # an exact search, so that among equal cosines the choice is ours
    rows = max(1, _BLOCK // max(looked_at * candidates.shape[1], n_classes))
    for start in range(0, len(queries), rows):
        block = queries[start : start + rows]
        _, found = faiss.knn(block, candidates, looked_at, metric=faiss.METRIC_INNER_PRODUCT)
        cosines = (candidates[found].astype(np.float64) * block[:, None]).sum(axis=2)
        order = np.lexsort((found, -cosines))[:, :k]
        cosines, found = (np.take_along_axis(array, order, axis=1) for array in (cosines, found))
        votes = np.exp((cosines - cosines[:, :1]) / TEMPERATURE) if weighted else np.ones_like(cosines)
        totals = np.zeros((len(block), n_classes))
        np.add.at(totals, (np.arange(len(block))[:, None], columns[found]), votes)
        yield totals

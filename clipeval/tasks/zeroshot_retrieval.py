"""Zero-shot retrieval: captions find their image, images find one of their captions (Radford et al. 2021)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from clipeval.errors import MetricError
from clipeval.metrics import normalise, require_finite
from clipeval.stats.intervals import Interval, clustered_intervals, wilson_interval
from clipeval.tasks.base import Inputs, Metric, TaskResult

if TYPE_CHECKING:
    from clipeval.datasets.base import Dataset

KS = (1, 5, 10)
_SHOWN = 5
"""Retrieved candidates that the per-sample table names."""
_BLOCK_TEXTS, _BLOCK_IMAGES = 500, 5000
_BOOTSTRAP_SEED = 0


def texts(dataset: Dataset) -> list[str]:
    """All captions in the order of their images."""
    return [caption for captions in _captions(dataset) for caption in captions]


def run(inputs: Inputs) -> TaskResult:
    """Measure both directions on ``inputs.dataset``. Raises MetricError."""
    captions = _captions(inputs.dataset)
    text_to_image = np.repeat(np.arange(len(captions)), [len(own) for own in captions])
    embeddings = inputs.texts(texts(inputs.dataset))
    return evaluate(inputs.images(), embeddings, text_to_image, inputs.dataset.ids)


def _captions(dataset: Dataset) -> Sequence[tuple[str, ...]]:
    if dataset.captions is None:
        raise MetricError(f"{dataset.name}: it has no captions, which zero-shot retrieval needs.")
    return dataset.captions


def evaluate(
    image_embeddings: np.ndarray, text_embeddings: np.ndarray, text_to_image: np.ndarray, image_ids: Sequence[str]
) -> TaskResult:
    """image_retrieval_recall@k and text_retrieval_recall@k for k in 1, 5, 10, by cosine in float32.

    ``image_embeddings`` is ``[n, D]``, ``text_embeddings`` ``[m, D]`` and ``text_to_image`` ``[m]`` the row of the
    image each text is a caption of. image_retrieval_recall@k is the share of captions whose image is among the k
    closest images; text_retrieval_recall@k is the share of images with any of their captions among the k closest
    captions (as in CLIP_benchmark). A k beyond the number of candidates is skipped. Intervals: over images, as the
    captions of one image are not independent (``clustered_intervals``, ``wilson_interval``).

    The samples have both directions: the column ``direction`` is ``text_to_image`` or ``image_to_text``, ``id`` the
    image's id, for captions with ``#`` and the caption's number. ``hit@k`` is 1, 0, or NaN where k is not defined;
    ``top1`` to ``top5`` are the ids retrieved, best first. Raises MetricError for an image without captions and for
    an embedding that is not finite.
    """
    n_images = len(image_embeddings)
    captions_per_image = np.bincount(text_to_image, minlength=n_images)
    if n_images == 0:
        raise MetricError("there is no image to retrieve: the split is empty.")
    if len(bare := np.flatnonzero(captions_per_image == 0)):
        raise MetricError(
            f"image '{image_ids[bare[0]]}' has no caption ({len(bare)} of {n_images} images have none): retrieval "
            "needs at least one per image. Add the captions or remove the images."
        )
    text_ids = caption_ids(image_ids, text_to_image)
    require_finite(image_embeddings, image_ids, "image")
    require_finite(text_embeddings, text_ids, "caption")
    images_found, texts_found = search(normalise(image_embeddings), normalise(text_embeddings), max(KS))
    text_hits = _hits(images_found == text_to_image[:, None])
    image_hits = _hits(text_to_image[texts_found] == np.arange(n_images)[:, None])
    hits_per_image = [np.bincount(text_to_image, weights=hits, minlength=n_images) for hits in text_hits.values()]
    clustered = clustered_intervals(np.stack(hits_per_image, axis=1), captions_per_image, _BOOTSTRAP_SEED)
    wilson = [wilson_interval(hits.sum(), n_images) for hits in image_hits.values()]
    return TaskResult(
        _metrics("image", text_hits, clustered, n_images) + _metrics("text", image_hits, wilson, len(text_to_image)),
        _samples(np.asarray(image_ids), text_ids, (images_found, texts_found), (text_hits, image_hits)),
    )


def caption_ids(image_ids: Sequence[str], text_to_image: np.ndarray) -> np.ndarray:
    """``image id#number`` per text, the captions of an image numbered from 0 in their order."""
    order = np.argsort(text_to_image, kind="stable")
    counts = np.bincount(text_to_image)
    numbers = np.empty_like(order)
    numbers[order] = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.array([f"{image_ids[image]}#{number}" for image, number in zip(text_to_image, numbers, strict=True)])


def search(images: np.ndarray, texts: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The ``k`` images closest to each text and the ``k`` texts closest to each image, best first, as row numbers.

    Unit vectors ``[n, D]`` and ``[m, D]`` in, ``[m, min(k, n)]`` and ``[n, min(k, m)]`` out. Exact: every inner product
    is computed, in blocks that FAISS's heaps select from, so that memory is O((n + m) k). Each product serves both
    directions; a FAISS index per direction would compute it twice.
    """
    import faiss

    best_images = faiss.ResultHeap(len(texts), min(k, len(images)), keep_max=True)
    best_texts = faiss.ResultHeap(len(images), min(k, len(texts)), keep_max=True)
    columns = np.ascontiguousarray(images.T)  # the matrix product is a little faster on it
    room = np.empty((2, _BLOCK_TEXTS * _BLOCK_IMAGES), dtype=np.float32)
    with _one_faiss_thread():
        for text in range(0, len(texts), _BLOCK_TEXTS):
            for image in range(0, len(images), _BLOCK_IMAGES):
                queries, candidates = texts[text : text + _BLOCK_TEXTS], columns[:, image : image + _BLOCK_IMAGES]
                shape = len(queries), candidates.shape[1]
                scores, flipped = room[0, : math.prod(shape)].reshape(shape), room[1, : math.prod(shape)]
                np.matmul(queries, candidates, out=scores)
                flipped.reshape(shape[::-1])[:] = scores.T
                best_images.heaps.addn(shape[1], faiss.swig_ptr(scores), image, text, shape[0])
                best_texts.heaps.addn(shape[0], faiss.swig_ptr(flipped), text, image, shape[1])
        best_images.finalize()
        best_texts.finalize()
    return best_images.I, best_texts.I


@contextmanager
def _one_faiss_thread() -> Iterator[None]:
    """The heaps take a tenth of the time; OpenMP's waiting threads would steal the cores from the matrix product."""
    import faiss

    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(threads)


def _hits(relevant: np.ndarray) -> dict[int, np.ndarray]:
    """Per k, whether any of the first k of the candidates ``[queries, K]`` is relevant; no entry for k > K."""
    return {k: np.any(relevant[:, :k], axis=1) for k in KS if k <= relevant.shape[1]}


def _metrics(what: str, hits: dict[int, np.ndarray], intervals: list[Interval], candidates: int) -> list[Metric]:
    metrics = []
    interval = dict(zip(hits, intervals, strict=True))
    n = len(hits[1])
    for k in KS:
        name = f"{what}_retrieval_recall@{k}"
        if k in hits:
            metrics.append(Metric(name, int(hits[k].sum()) / n, *interval[k], n))
        else:
            kind = "images" if what == "image" else "captions"
            reason = f"recall@{k} needs at least {k} candidate {kind}; the data set has {candidates}"
            metrics.append(Metric(name, math.nan, math.nan, math.nan, n, status="skipped", error=reason))
    return metrics


def _samples(
    image_ids: np.ndarray,
    text_ids: np.ndarray,
    found: tuple[np.ndarray, np.ndarray],
    hits: tuple[dict[int, np.ndarray], dict[int, np.ndarray]],
) -> dict[str, np.ndarray]:
    """The texts' searches, then the images'."""
    images_found, texts_found = found
    queries, candidates = (text_ids, image_ids), (image_ids, text_ids)
    samples = {
        "id": np.concatenate(queries),
        "direction": np.repeat(["text_to_image", "image_to_text"], [len(text_ids), len(image_ids)]),
    }
    for k in KS:
        samples[f"hit@{k}"] = np.concatenate(
            [one[k].astype(np.float32) if k in one else np.full(len(one[1]), np.nan, np.float32) for one in hits]
        )
    for place in range(_SHOWN):
        named = [
            ids[rows[:, place]] if place < rows.shape[1] else np.full(len(rows), "")
            for ids, rows in zip(candidates, (images_found, texts_found), strict=True)
        ]
        samples[f"top{place + 1}"] = np.concatenate(named)
    return samples

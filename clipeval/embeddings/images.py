"""Image embeddings of one data set under one checkpoint: each image is encoded once, whatever tasks read it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from clipeval.datasets.base import Dataset
from clipeval.embeddings import batches, entries, pixels
from clipeval.embeddings.batches import Batch
from clipeval.embeddings.bucket import BucketRecords, store_url
from clipeval.embeddings.pixels import LoaderSettings
from clipeval.embeddings.records import RecordFile
from clipeval.errors import ModelError

if TYPE_CHECKING:
    from clipeval.models.base import Encoder

Progress = Callable[[int, int], None]
"""Called with the number of items just finished and how many of them came from the store."""


def embedding_file(encoder: Encoder, dataset: Dataset, fresh: str | None = None) -> RecordFile | BucketRecords:
    """The store of ``dataset``'s image embeddings under ``encoder``. Raises UsageError or StoreError."""
    key = {"encoder": encoder.identity.image_key(encoder.precision), "dataset": dataset.fingerprint, "n": len(dataset)}
    row_bytes = encoder.embed_dim * 4
    if url := store_url():
        return BucketRecords.open(url, "images", key, len(dataset), row_bytes, fresh)
    return RecordFile(entries.folder("images", key, fresh) / "embeddings.rec", len(dataset), row_bytes)


def freshen(encoder: Encoder, dataset: Dataset, settings: LoaderSettings) -> None:
    """Empty what the stores hold of ``dataset``'s images under ``encoder`` from before a run that takes nothing from
    there, unless it has done so already. Raises UsageError or StoreError."""
    if settings.fresh:
        embedding_file(encoder, dataset, settings.fresh)
        pixels.pixel_file(dataset, encoder, settings.fresh, keeps=settings.keep(dataset))


def embed(
    encoder: Encoder, dataset: Dataset, indices: np.ndarray, settings: LoaderSettings, progress: Progress
) -> np.ndarray:
    """Embeddings ``[len(indices), embed_dim]`` float32 of ``dataset``'s images at ``indices``.

    Raises DataError for an image that cannot be decoded and ModelError for a non-finite embedding; both name the
    sample. Raises StoreError when the store cannot be read or written.
    """
    store = embedding_file(encoder, dataset, settings.fresh)
    rows, valid = store.read(indices)
    progress(int(valid.sum()), int(valid.sum()))
    embeddings, missing = rows.view(np.float32), np.flatnonzero(~valid)
    if not len(missing):
        return embeddings
    done = 0
    try:
        with pixels.loaded(dataset, encoder, indices[missing], settings) as loaded:
            given = ((chosen, Batch(images)) for chosen, images, _ in loaded)
            for chosen, vectors in batches.encoded(encoder, "images", given, encoder.encode_images):
                _require_finite(dataset, chosen, vectors)
                store.write(chosen, vectors)
                embeddings[missing[done : done + len(chosen)]] = vectors
                done += len(chosen)
                progress(len(chosen), 0)
    finally:
        store.flush()
    return embeddings


def _require_finite(dataset: Dataset, indices: np.ndarray, embeddings: np.ndarray) -> None:
    bad = np.flatnonzero(~np.isfinite(embeddings).all(axis=1))
    if len(bad):
        sample = dataset.ids[int(indices[bad[0]])]
        raise ModelError(
            f"{dataset.name}: sample '{sample}': the image embedding is not finite. "
            "The weights may be broken, or overflow at this precision: try --precision fp32."
        )

"""Image embeddings of one data set under one checkpoint: each image is encoded once, whatever tasks read it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from clipeval import paths
from clipeval.datasets.base import Dataset
from clipeval.embeddings import pixels
from clipeval.embeddings.bucket import BucketRecords, store_url
from clipeval.embeddings.records import RecordFile, entry_folder
from clipeval.errors import ModelError

if TYPE_CHECKING:
    from clipeval.models.base import Encoder

T = TypeVar("T")

_VERSION = 1
_SMALL_SET_BATCHES = 4
"""Below this many batches, starting decoder processes takes longer than decoding."""

Progress = Callable[[int, int], None]
"""Called with the number of items just finished and how many of them came from the store."""


@dataclass(frozen=True)
class LoaderSettings:
    """How images are fed to a checkpoint. None of it changes a result."""

    batch_size: int = 64
    workers: int = 0
    fresh: str | None = None


def embedding_file(encoder_key: dict[str, object], embed_dim: int, dataset: Dataset) -> RecordFile | BucketRecords:
    """The store of ``dataset``'s image embeddings under the checkpoint that ``encoder_key`` describes."""
    key = {"version": _VERSION, "encoder": encoder_key, "dataset": dataset.fingerprint, "n": len(dataset)}
    if store := store_url():
        return BucketRecords.open(store, "images", key, len(dataset), embed_dim * 4)
    folder = entry_folder(paths.cache_dir(), "images", key)
    return RecordFile(folder / "embeddings.rec", len(dataset), embed_dim * 4)


def embed(
    encoder: Encoder, dataset: Dataset, indices: np.ndarray, settings: LoaderSettings, progress: Progress
) -> np.ndarray:
    """Embeddings ``[len(indices), embed_dim]`` float32 of ``dataset``'s images at the (ascending) ``indices``.

    Raises DataError for an image that cannot be decoded and ModelError for a non-finite embedding; both name the
    sample.
    """
    store = embedding_file(encoder.key(), encoder.embed_dim, dataset)
    rows, valid = store.read(indices)
    progress(int(valid.sum()), int(valid.sum()))
    missing = indices[~valid]
    if len(missing):
        _encode(encoder, dataset, missing, store, settings, progress)
        rows, valid = store.read(indices)
        if not valid.all():
            raise ModelError(f"{store.path}: embeddings just written cannot be read back. Check the disk.")
    return rows.view(np.float32)


def _encode(
    encoder: Encoder,
    dataset: Dataset,
    missing: np.ndarray,
    store: RecordFile | BucketRecords,
    settings: LoaderSettings,
    progress: Progress,
) -> None:
    batches = pixels.PixelBatches(dataset, encoder, missing, settings.batch_size)
    workers = settings.workers if len(batches) >= _SMALL_SET_BATCHES else 0
    loaded = pixels.load(batches, workers, pin_memory=encoder.device.startswith("cuda"))
    try:
        for indices, encoded in one_behind((indices, encoder.encode_images(batch)) for indices, batch, _ in loaded):
            _store(dataset, store, indices, encoded.cpu().numpy(), progress)
    finally:
        store.flush()


def one_behind(items: Iterator[T]) -> Iterator[T]:
    """The same items, each handed out after the next was made: a device works on a batch while the last is stored."""
    previous: list[T] = []
    for item in items:
        yield from previous
        previous = [item]
    yield from previous


def _store(
    dataset: Dataset, store: RecordFile | BucketRecords, indices: np.ndarray, embeddings: np.ndarray, progress: Progress
) -> None:
    bad = np.flatnonzero(~np.isfinite(embeddings).all(axis=1))
    if len(bad):
        sample = dataset.ids[int(indices[bad[0]])]
        raise ModelError(
            f"{dataset.name}: sample '{sample}': the image embedding is not finite. "
            "The weights may be broken, or overflow at this precision: try --precision fp32."
        )
    store.write(indices, embeddings)
    progress(len(indices), 0)

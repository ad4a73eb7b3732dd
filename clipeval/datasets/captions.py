"""The captions of a retrieval set as they are scored: none blank, and of an image that stands in several rows all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from clipeval import digest
from clipeval.datasets.loaded import LoadedDataset, some_rows
from clipeval.errors import DataError


def tidied(dataset: LoadedDataset) -> LoadedDataset:
    """``dataset`` without blank captions, and with one sample for all rows of the same image; its remarks say so.

    Raises DataError for an image without a caption and for a blank candidate caption.
    """
    for sample, candidates in zip(dataset.ids, dataset.choices or (), strict=dataset.choices is not None):
        if not candidates or not all(text.strip() for text in candidates):
            raise DataError(
                f"{dataset.name}: sample {sample} has {'a blank' if candidates else 'no'} candidate caption."
            )
    return dataset if dataset.captions is None else _grouped(_without_blanks(dataset))


def _without_blanks(dataset: LoadedDataset) -> LoadedDataset:
    captions = dataset.captions or ()
    kept = [tuple(text for text in texts if text.strip()) for texts in captions]
    for sample, texts, all_texts in zip(dataset.ids, kept, captions, strict=True):
        if not texts:
            raise DataError(
                f"{dataset.name}: sample {sample} has no caption{' that is not blank' if all_texts else ''}."
            )
    total, left = sum(map(len, captions)), sum(map(len, kept))
    if left == total:
        return dataset
    remark = f"{total - left:,} of {total:,} captions are blank and were left out"
    return replace(dataset, captions=kept, remarks=(*dataset.remarks, remark), fingerprint=_changed(dataset, kept))


def _grouped(dataset: LoadedDataset) -> LoadedDataset:
    """Rows with the same image are one sample, at the place of the first: as samples of their own each would have one
    right image among several equal ones."""
    rows = list(_rows_per_image(dataset))
    if len(rows) == len(dataset) or dataset.captions is None:
        return dataset
    first = np.array([members[0] for members in rows])
    labels, repeated = dataset.labels, [members for members in rows if len(members) > 1]
    if labels is not None and any(np.any(labels[members] != labels[members[0]]) for members in repeated):
        remark = f"{len(dataset) - len(rows):,} rows repeat an image, some with another label: each counts for itself"
        return replace(dataset, remarks=(*dataset.remarks, remark))
    captions = [tuple(text for row in members for text in dataset.captions[row]) for members in rows]
    remark = (
        f"{len(dataset):,} rows hold {len(rows):,} different images: rows with the same image count as one image with "
        "all their captions"
    )
    return some_rows(
        dataset,
        first,
        captions=captions,
        remarks=(*dataset.remarks, remark),
        fingerprint=_changed(dataset, captions),
    )


def _rows_per_image(dataset: LoadedDataset) -> Iterator[list[int]]:
    """The rows of each different image, in the order of the first ones."""
    rows: dict[str, list[int]] = {}
    for row, image in enumerate(dataset.digests or dataset.ids):
        rows.setdefault(image, []).append(row)
    yield from rows.values()


def _changed(dataset: LoadedDataset, captions: list[tuple[str, ...]]) -> str:
    return digest.of_value([dataset.fingerprint, [list(texts) for texts in captions]])

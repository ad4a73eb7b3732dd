"""Winoground: items of two images and two captions, where each image must be matched with its own caption."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from clipeval.datasets import contents, fingerprint
from clipeval.datasets.adapters.columns import choices_of
from clipeval.datasets.adapters.hf_source import SplitSource
from clipeval.datasets.adapters.image_column import ImageColumn, image_column
from clipeval.datasets.loaded import LoadedDataset

if TYPE_CHECKING:
    from PIL import Image


def is_winoground(rows: Any) -> bool:
    """Whether a table has the columns of Winoground."""
    return {f"{kind}_{side}" for kind in ("image", "caption") for side in (0, 1)} <= set(rows.features)


def open_winoground(name: str, split: str, source: SplitSource) -> LoadedDataset:
    """Two samples per row of the table, ``ROW/0`` and ``ROW/1``; ``groups`` is the row, the own caption comes first.

    Raises DataError for a cell that names files elsewhere, and for a caption that is no text."""
    rows = source.rows
    columns = tuple(image_column(name, rows, f"image_{side}", source.root) for side in (0, 1))
    captions = choices_of(name, rows, ("caption_0", "caption_1"))
    choices = [pair for first, second in captions for pair in ((first, second), (second, first))]
    groups = np.repeat(np.arange(len(rows)), 2)
    images = [image for pair in zip(*(column.contents for column in columns), strict=True) for image in pair]
    return LoadedDataset(
        name=name,
        split=split,
        fingerprint=fingerprint.of_contents([image.pixels for image in images], None, choices, groups),
        ids=[f"{row}/{side}" for row in range(len(rows)) for side in (0, 1)],
        read=_TwoColumns(columns),
        choices=choices,
        groups=groups,
        digests=[image.sha256 for image in images],
        remarks=(*source.remarks, *contents.remarks(images)),
        revision=source.revision,
    )


@dataclass(frozen=True)
class _TwoColumns:
    columns: tuple[ImageColumn, ...]

    def __call__(self, index: int) -> Image.Image:
        return self.columns[index % 2](index // 2)

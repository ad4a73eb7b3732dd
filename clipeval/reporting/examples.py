"""Retrieval examples as pictures: captions with the images that checkpoints found for them."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from clipeval.config import Config
from clipeval.errors import ClipevalError, DataError
from clipeval.reporting.rows import text
from clipeval.results.columns import records
from clipeval.results.outcomes import has_outcomes, shelves_of

if TYPE_CHECKING:
    import pandas as pd
    from PIL import Image

    from clipeval.datasets.base import Dataset

_QUERIES = 8
_MODELS = 4
_PLACES = 5
_METRIC = "image_retrieval_recall@5"
_SIDE = 112
"""Pixels of a thumbnail's longer side."""


@dataclass(frozen=True)
class Picture:
    """One image as a data URI; ``uri`` is empty where it cannot be read."""

    id: str
    uri: str
    correct: bool


@dataclass(frozen=True)
class Query:
    """A caption, its own image, and the images found for it, best first."""

    caption: str
    own: Picture
    found: tuple[Picture, ...]


@dataclass(frozen=True)
class Gallery:
    """The examples of one checkpoint on one data set."""

    dataset: str
    model: str
    recall: float
    n: int
    queries: tuple[Query, ...]


def galleries(rows: pd.DataFrame, config: Config) -> tuple[list[Gallery], list[str]]:
    """Examples of the best checkpoints per data set, and sentences about what is missing for others.

    The captions are evenly spaced over the data set, the same for every checkpoint: nobody chose them.
    """
    wanted = rows[
        (rows["good"] & rows["final"] & ~rows["suite"] & (rows["metric"] == _METRIC)).fillna(False).to_numpy(bool)
    ]
    if wanted.empty:
        return [], ["There is no zero-shot retrieval in these results."]
    shelves = shelves_of(wanted)
    found: list[Gallery] = []
    missing: list[str] = []
    for dataset, group in wanted.groupby("dataset", sort=True):
        best = group.sort_values("value", ascending=False, kind="stable").drop_duplicates("model")
        kept = [row for row in records(best) if has_outcomes(shelves, row)][:_MODELS]
        if not kept:
            missing.append(f"{dataset}: the results hold no per-sample outcomes (the folder samples beside the table).")
            continue
        try:
            library = _Library(str(dataset), text(kept[0]["dataset_fingerprint"]), config)
            for row in kept:
                queries = tuple(_queries(shelves[row["results_file"]].frame(row), library))
                found.append(Gallery(str(dataset), row["model"], row["value"], int(row["n"]), queries))
        except ClipevalError as error:
            missing.append(str(error))
        except (LookupError, TypeError, ValueError):  # columns, ids or numbers of captions that the data set has not
            missing.append(f"{dataset}: its per-sample outcomes do not belong to its images and captions.")
    return found, missing


def _queries(frame: pd.DataFrame, library: _Library) -> Iterator[Query]:
    texts = frame[(frame["direction"] == "text_to_image").to_numpy(bool)]
    chosen = texts.iloc[np.arange(min(_QUERIES, len(texts))) * len(texts) // min(_QUERIES, len(texts))]
    for row in records(chosen):
        image, _, number = str(row["id"]).rpartition("#")
        ids = [str(row[f"top{place + 1}"]) for place in range(_PLACES) if row.get(f"top{place + 1}")]
        pictures = [Picture(name, library.thumbnail(name), name == image) for name in ids]
        yield Query(
            library.caption(image, int(number)), Picture(image, library.thumbnail(image), True), tuple(pictures)
        )


class _Library:
    """Captions and images of one data set. Raises DataError that says what is missing."""

    def __init__(self, name: str, fingerprint: str, config: Config) -> None:
        self._dataset = _open(name, fingerprint, config)
        self._index = {sample: i for i, sample in enumerate(self._dataset.ids)}
        self._known: dict[str, str] = {}

    def caption(self, image: str, number: int) -> str:
        """A caption of an image."""
        captions: Sequence[tuple[str, ...]] = self._dataset.captions or ()
        return captions[self._index[image]][number]

    def thumbnail(self, image: str) -> str:
        """The image as a data URI; empty where it cannot be read."""
        if image not in self._known:
            self._known[image] = self._read(self._index[image])
        return self._known[image]

    def _read(self, index: int) -> str:
        try:
            return _data_uri(self._dataset.image(index))
        except ClipevalError:
            return ""


def _open(name: str, fingerprint: str, config: Config) -> Dataset:
    """The data set as it was measured, from what is on this machine. Raises DataError."""
    from clipeval.datasets import open_dataset

    entry = config.dataset(name)
    if entry is None:
        raise DataError(f"{name}: no data set of {config.path} has this name, so its captions cannot be read. Add it.")
    dataset = open_dataset(name, entry, offline=True)
    if dataset.fingerprint != fingerprint:
        raise DataError(f"{name}: its contents here differ from those that were measured.")
    return dataset


def _data_uri(image: Image.Image) -> str:
    from PIL.Image import Resampling

    image.thumbnail((_SIDE, _SIDE), Resampling.LANCZOS)  # a smaller one stays as it is
    buffer = io.BytesIO()
    kind = "PNG" if max(image.size) <= 48 else "JPEG"  # JPEG's blocks blur icons
    image.save(buffer, kind, **({} if kind == "PNG" else {"quality": 82}))
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"

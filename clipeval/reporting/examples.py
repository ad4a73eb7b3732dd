"""Retrieval examples as pictures: captions with the images that checkpoints found for them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from clipeval.errors import ClipevalError
from clipeval.reporting.library import Libraries, Library
from clipeval.reporting.rows import text
from clipeval.results.columns import records
from clipeval.results.outcomes import has_outcomes, shelves_of

if TYPE_CHECKING:
    import pandas as pd

_QUERIES = 8
_MODELS = 4
_PLACES = 5
_METRIC = "image_retrieval_recall@5"


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


def galleries(rows: pd.DataFrame, libraries: Libraries) -> tuple[list[Gallery], list[str]]:
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
            library = libraries.get(str(dataset), text(kept[0]["dataset_fingerprint"]))
            for row in kept:
                queries = tuple(_queries(shelves[row["results_file"]].frame(row), library))
                found.append(Gallery(str(dataset), row["model"], row["value"], int(row["n"]), queries))
        except ClipevalError as error:
            missing.append(str(error))
        except (LookupError, TypeError, ValueError):  # columns, ids or numbers of captions that the data set has not
            missing.append(f"{dataset}: its per-sample outcomes do not belong to its images and captions.")
    return found, missing


def pictures(galleries: Sequence[Gallery]) -> dict[str, int]:
    """The data URIs of all pictures, numbered: many captions and checkpoints share some."""
    queries = [query for gallery in galleries for query in gallery.queries]
    uris = dict.fromkeys(image.uri for query in queries for image in (query.own, *query.found) if image.uri)
    return {uri: number for number, uri in enumerate(uris)}


def _queries(frame: pd.DataFrame, library: Library) -> Iterator[Query]:
    texts = frame[(frame["direction"] == "text_to_image").to_numpy(bool)]
    chosen = texts.iloc[np.arange(min(_QUERIES, len(texts))) * len(texts) // min(_QUERIES, len(texts))]
    for row in records(chosen):
        image, _, number = str(row["id"]).rpartition("#")
        ids = [str(row[f"top{place + 1}"]) for place in range(_PLACES) if row.get(f"top{place + 1}")]
        pictures = [Picture(name, library.thumbnail(name), name == image) for name in ids]
        yield Query(
            library.caption(image, int(number)), Picture(image, library.thumbnail(image), True), tuple(pictures)
        )

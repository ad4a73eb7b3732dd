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

_EACH = {"text_to_image": 8, "image_to_text": 4}
"""Captions, and images, of a data set that are shown, and as many more at most that the best checkpoint misses."""
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
class Caption:
    """One caption that was found for an image."""

    text: str
    correct: bool


@dataclass(frozen=True)
class Query:
    """A ``caption`` and the images found for it, or an image and the captions found for it, best first. ``extra``: it
    is one of those that the best checkpoint misses."""

    id: str
    caption: str
    own: Picture
    found: tuple[Picture | Caption, ...]
    extra: bool

    @property
    def missed(self) -> bool:
        """Whether nothing that was found is right."""
        return not any(one.correct for one in self.found)


@dataclass(frozen=True)
class Gallery:
    """The examples of one checkpoint on one data set, of captions and of images."""

    dataset: str
    model: str
    recall: float
    n: int
    queries: tuple[Query, ...]
    answers: tuple[Query, ...]


def galleries(rows: pd.DataFrame, libraries: Libraries) -> tuple[list[Gallery], list[str]]:
    """Examples of the best checkpoints per data set, and sentences about what is missing for others.

    Captions and images are evenly spaced over the data set, the same for every checkpoint: nobody chose them. Then come
    some that the best checkpoint misses, evenly spaced over those.
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
            frames = [shelves[row["results_file"]].frame(row) for row in kept]
            chosen = [_chosen(frames[0], direction) for direction in _EACH]
            for row, frame in zip(kept, frames, strict=True):
                queries, answers = (tuple(_queries(frame, library, *which)) for which in chosen)
                found.append(Gallery(str(dataset), row["model"], row["value"], int(row["n"]), queries, answers))
        except ClipevalError as error:
            missing.append(str(error))
        except (LookupError, TypeError, ValueError):  # columns, ids or numbers of captions that the data set has not
            missing.append(f"{dataset}: its per-sample outcomes do not belong to its images and captions.")
    return found, missing


def pictures(galleries: Sequence[Gallery]) -> dict[str, int]:
    """The data URIs of all pictures, numbered: many captions and checkpoints share some."""
    queries = [query for gallery in galleries for query in (*gallery.queries, *gallery.answers)]
    shown = (image for query in queries for image in (query.own, *query.found) if isinstance(image, Picture))
    uris = dict.fromkeys(image.uri for image in shown if image.uri)
    return {uri: number for number, uri in enumerate(uris)}


def _chosen(frame: pd.DataFrame, direction: str) -> tuple[str, list[str], list[str]]:
    """The direction, ids that are evenly spaced over it, and further ones over those that were missed."""
    part = frame[(frame["direction"] == direction).to_numpy(bool)]
    some = _spaced(part["id"], _EACH[direction])
    missed = part.loc[(part["hit@5"] == 0).to_numpy(bool) & ~part["id"].isin(some).to_numpy(bool), "id"]
    return direction, some, _spaced(missed, _EACH[direction])


def _spaced(ids: pd.Series, most: int) -> list[str]:
    n = min(most, len(ids))
    return ids.iloc[np.arange(n) * len(ids) // max(n, 1)].tolist()


def _queries(
    frame: pd.DataFrame, library: Library, direction: str, some: list[str], missed: list[str]
) -> Iterator[Query]:
    part = frame[((frame["direction"] == direction) & frame["id"].isin([*some, *missed])).to_numpy(bool)]
    by_id = {str(row["id"]): row for row in records(part)}
    for name in (name for name in (*some, *missed) if name in by_id):
        found = [str(by_id[name][f"top{place + 1}"] or "") for place in range(_PLACES)]
        image, _, number = name.rpartition("#") if direction == "text_to_image" else (name, "", "")
        yield Query(
            id=name,
            caption=library.caption(image, int(number)) if number else "",
            own=Picture(image, library.thumbnail(image), True),
            found=tuple(_found(other, image, library, direction) for other in found if other),
            extra=name not in some,
        )


def _found(name: str, image: str, library: Library, direction: str) -> Picture | Caption:
    if direction == "text_to_image":
        return Picture(name, library.thumbnail(name), name == image)
    of, _, number = name.rpartition("#")
    return Caption(library.caption(of, int(number)), of == image)

"""The samples that two checkpoints differ on, as the page shows them: by number, with words and pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from clipeval.errors import ClipevalError
from clipeval.reporting.comparison import Comparison
from clipeval.reporting.library import Libraries, Library
from clipeval.reporting.rows import text

if TYPE_CHECKING:
    import pandas as pd

MOST_PICTURES = 40
"""Pictures per measurement; the samples that most pairs differ on have them."""


def samples(
    comparison: Comparison, rows: pd.DataFrame, libraries: Libraries, pictures: dict[str, int]
) -> dict[str, Any]:
    """``cells``: per measurement the samples as ``[id, words, number of its picture or -1]``; ``pairs``: by ``a-b`` and
    measurement the numbers of those that only the first and only the second gets right. ``pictures`` are the data URIs
    of the page with their numbers, to which those of the samples are added."""
    found: list[dict[str, int]] = [{} for _ in comparison.cells]
    numbered: dict[str, dict[int, list[list[int]]]] = {}
    for (a, b), cells in comparison.flips.items():
        numbered[f"{a}-{b}"] = {
            place: [[found[place].setdefault(name, len(found[place])) for name in side] for side in flips]
            for place, flips in cells.items()
        }
    listed = []
    for place, ids in enumerate(found):
        own = next(row for of_model in comparison.rows if (row := of_model[place]) >= 0)
        fingerprint = text(rows["dataset_fingerprint"].to_numpy(object)[own])
        library = _library(comparison.cells[place].dataset, fingerprint, libraries) if ids else None
        found_here = [_sample(name, number, library) for name, number in ids.items()]
        listed.append(
            [[name, said, pictures.setdefault(uri, len(pictures)) if uri else -1] for name, said, uri in found_here]
        )
    return {"cells": listed, "pairs": numbered}


def _library(dataset: str, fingerprint: str, libraries: Libraries) -> Library | None:
    try:
        return libraries.get(dataset, fingerprint)
    except ClipevalError:
        return None  # ids stand for what is not on this machine


def _sample(name: str, number: int, library: Library | None) -> tuple[str, str, str]:
    if library is None:
        return name, "", ""
    return name, library.words(name), library.picture_of(name) if number < MOST_PICTURES else ""

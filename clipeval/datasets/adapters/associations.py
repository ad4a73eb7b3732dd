"""Rows of a cue and several candidate images, of which some are its associations (WinoGAViL, Bitton et al. 2022)."""

from __future__ import annotations

from typing import Any

import numpy as np

from clipeval.datasets import contents, fingerprint
from clipeval.datasets.adapters.hf_source import SplitSource
from clipeval.datasets.adapters.image_column import image_column, reading
from clipeval.datasets.loaded import LoadedDataset
from clipeval.errors import DataError, few

COLUMNS = ("cue", "candidates", "candidate_images", "associations")


def open_associations(name: str, split: str, source: SplitSource) -> LoadedDataset:
    """The rows of a table with ``COLUMNS``: a text, the candidates' names, their images in the same order, and the
    names of those that belong to the cue. Samples are images, ``ROW/CANDIDATE``; ``groups`` is the row.

    Raises DataError for a row whose columns do not fit each other, with its number.
    """
    with reading(name, ", ".join(COLUMNS)):
        cues, candidates, associations = (list(source.rows[key]) for key in ("cue", "candidates", "associations"))
    rows = list(zip(cues, candidates, associations, strict=True))
    for number, row in enumerate(rows):
        _check(f"{name}: row {number}", *row)
    places = [(number, place) for number, names in enumerate(candidates) for place in range(len(names))]
    images = image_column(name, source.rows, "candidate_images", source.root, places)
    associated = np.array([candidates[row][place] in associations[row] for row, place in places], bool)
    groups = np.array([row for row, _ in places], np.int64)
    texts = [cues[row] for row, _ in places]
    shown = [image.pixels for image in images.contents]
    return LoadedDataset(
        name=name,
        split=split,
        fingerprint=fingerprint.of_contents(shown, associated, [(text,) for text in texts], groups),
        ids=[f"{row}/{place}" for row, place in places],
        read=images,
        cues=texts,
        associated=associated,
        groups=groups,
        digests=[image.sha256 for image in images.contents],
        remarks=(*source.remarks, *contents.remarks(images.contents)),
        revision=source.revision,
    )


def _check(where: str, cue: Any, candidates: Any, associations: Any) -> None:
    if not isinstance(cue, str) or not cue.strip():
        raise DataError(f"{where}: its cue is {cue!r:.40}, and must be a text.")
    for what, names in (("candidates", candidates), ("associations", associations)):
        if not isinstance(names, list | tuple) or not names or not all(isinstance(text, str) for text in names):
            raise DataError(f"{where}: its {what} are {names!r:.80}, and must be a list of names.")
        if len(set(names)) < len(names):
            raise DataError(f"{where}: a name stands twice among its {what}: {few(names)}.")
    if unknown := [text for text in associations if text not in candidates]:
        raise DataError(f"{where}: its association {few(unknown)} is none of its candidates: {few(candidates)}.")

"""``wds:``: webdataset shards in CLIP_benchmark's layout, from a folder, a URL, or a list of tar files.

ROOT/classnames.txt  ROOT/zeroshot_classification_templates.txt  ROOT/dataset_type.txt    (each optional)
ROOT/SPLIT/nshards.txt  ROOT/SPLIT/0.tar  ROOT/SPLIT/1.tar ...
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from clipeval.config import DatasetEntry
from clipeval.datasets import contents, fingerprint
from clipeval.datasets import labels as values
from clipeval.datasets.adapters.shards import find_shards
from clipeval.datasets.adapters.tar_index import TarSample, index_tars
from clipeval.datasets.images import decode
from clipeval.datasets.loaded import LoadedDataset
from clipeval.datasets.metadata import named
from clipeval.datasets.objectives import are_lines
from clipeval.datasets.prompts import load_prompts
from clipeval.errors import DataError
from clipeval.regular import open_regular

if TYPE_CHECKING:
    from PIL import Image


def open_wds(
    name: str, reference: str, split: str, entry: DatasetEntry, offline: bool, known_as: str = "", language: str = ""
) -> LoadedDataset:
    """Open a folder or URL in the layout above, or tar files: ``FILE.tar``, ``{000..012}.tar``, ``A.tar::B.tar``, or
    a text file with one of these per line. Tar files without the layout are one split, ``entry.split``.

    Ids are SHARD/KEY. Labels come from ``.cls`` (a class index) or ``.npy`` (0 or 1 per class), captions from ``.txt``
    (one per line); ``.npy`` beside ``.cls`` is metadata, read where the entry names its numbers. CLIP_benchmark's class
    names are looked up as ``known_as``, by default ``name``, and in ``language``, by default the entry's. Raises
    DataError naming what is missing, truncated or inconsistent.
    """
    shards = find_shards(name, reference, split, entry, offline)
    indexes = index_tars(shards.paths)
    samples: list[TarSample] = []
    ids: list[str] = []
    paths: list[Path] = []
    for path, stem, index in zip(shards.paths, shards.stems, indexes, strict=True):
        samples += index.samples
        ids += [f"{stem}/{sample.key}" for sample in index.samples]
        paths += [path] * len(index.samples)
    of_objectives = are_lines(shards.classes)  # their labels are metadata
    multilabel = not of_objectives and _is_multilabel(samples, shards.kind)
    unlabelled = of_objectives or shards.kind == "retrieval"
    labels = None if unlabelled else _labels(name, ids, samples, shards.kind, multilabel)
    fields = entry.metadata if split == entry.split else None  # what is trained on needs none
    metadata, cut = _metadata(name, fields, ids, samples, multilabel)
    captions = _captions(name, ids, samples, shards.kind)
    shown = [index.images_digest for index in indexes]
    prompts = None
    if labels is not None or of_objectives:
        known_as, language = known_as or name, language or entry.language
        prompts = load_prompts(known_as, entry.prompts, language, shards.classes, shards.templates)
    return LoadedDataset(
        name=name,
        split=split,
        fingerprint=fingerprint.of_contents(shown, labels, captions, None, metadata),
        ids=ids,
        read=_TarImages(name, paths, samples, ids),
        labels=labels,
        prompts=prompts,
        captions=captions,
        revision=shards.revision,
        digests=[sample.sha256 for sample in samples],
        metadata=metadata,
        remarks=(*shards.remarks, *cut, *contents.remarks([sample.content for sample in samples])),
    )


@dataclass(frozen=True)
class _TarImages:
    """Reads one image at its place in its shard; opens the file each time, so that loader workers share nothing."""

    name: str
    paths: Sequence[Path]
    samples: Sequence[TarSample]
    ids: Sequence[str]

    def __call__(self, index: int) -> Image.Image:
        path, place = self.paths[index], self.samples[index]
        sample = f"{self.name}: sample {self.ids[index]}"
        try:
            with open_regular(path) as file:
                file.seek(place.offset)
                data = file.read(place.size)
        except OSError as error:
            raise DataError(f"{sample}: cannot read {path}: {error.strerror}.") from error
        return decode(data, sample, place.sha256)


def _is_multilabel(samples: Sequence[TarSample], kind: str) -> bool:
    """Whether ``.npy`` holds the labels: where the data set says so, or no sample has ``.cls``."""
    by_content = any(sample.npy is not None for sample in samples) and all(sample.cls is None for sample in samples)
    return kind == "multilabel" or (kind == "" and by_content)


def _labels(
    name: str, ids: Sequence[str], samples: Sequence[TarSample], kind: str, multilabel: bool
) -> np.ndarray | None:
    """``[n]`` int64 or ``[n, K]`` bool; None where no sample has a label and the data set does not claim any."""
    found = [sample.npy if multilabel else sample.cls for sample in samples]
    if kind == "" and all(value is None for value in found):
        return None
    what = "label (.npy)" if multilabel else "label (.cls)"
    _check_complete(name, ids, found, what)

    def where(index: int) -> str:
        return f"{name}: sample {ids[index]}, {what}"

    if multilabel:
        return values.zero_or_one([sample.npy or [] for sample in samples], where)
    return values.whole_numbers([sample.cls for sample in samples], where)


def _metadata(
    name: str, fields: Sequence[str] | None, ids: Sequence[str], samples: Sequence[TarSample], multilabel: bool
) -> tuple[dict[str, np.ndarray] | None, tuple[str, ...]]:
    """What ``.npy`` files beside the labels say, where its ``fields`` are named, and remarks."""
    if fields is None:
        return None, ()
    if multilabel:
        raise DataError(f"{name}: metadata: means nothing here: the .npy files hold the labels, several per image.")
    return named(name, fields, [sample.npy for sample in samples], ids)


def _captions(name: str, ids: Sequence[str], samples: Sequence[TarSample], kind: str) -> list[tuple[str, ...]] | None:
    """One tuple per image; None where the data set is a classification set or no sample has captions."""
    values = [sample.txt for sample in samples]
    if kind in ("classification", "multilabel") or (kind == "" and all(value is None for value in values)):
        return None
    _check_complete(name, ids, values, "caption (.txt)")
    return [tuple(value or ()) for value in values]


def _check_complete(name: str, ids: Sequence[str], values: Sequence[object], what: str) -> None:
    for sample, value in zip(ids, values, strict=True):
        if value is None:
            raise DataError(f"{name}: sample {sample} has no {what}, and others have one.")

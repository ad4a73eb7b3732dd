"""``hf:``: data sets of the Hugging Face hub, local Parquet files and local image folders, through ``datasets``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from clipeval.config import DatasetEntry
from clipeval.datasets import contents, fingerprint
from clipeval.datasets.adapters.associations import COLUMNS, open_associations
from clipeval.datasets.adapters.columns import captions_of, choices_of, chosen_columns, labels_of
from clipeval.datasets.adapters.hf_source import SplitSource, split_source
from clipeval.datasets.adapters.image_column import image_column
from clipeval.datasets.adapters.winoground import is_winoground, open_winoground
from clipeval.datasets.loaded import LoadedDataset
from clipeval.errors import DataError


def open_hf(name: str, reference: str, split: str, entry: DatasetEntry, offline: bool) -> LoadedDataset:
    """Open NAME[:CONFIG][@REV] of the hub, a Parquet file or folder, or an image folder. Ids are row numbers.

    The image, label, caption and choice columns are those of ``entry``, else those that their types and names give
    away; a table with Winoground's columns holds items of two images, one with cues, candidate images and associations
    is for the task association. Code of a repository is never run, and image files that a table names lie in its own
    folder or in that of the hub's downloads. Raises DataError for a missing data set or split and for columns that
    cannot be told.
    """
    source = split_source(name, reference, split, entry, offline)
    rows = source.rows
    if source.kind == "imagefolder" and set(rows.features) == {"image"}:
        raise DataError(
            f"{name}: hf:{reference}: its images do not lie in class folders, SPLIT/CLASS/*.jpg, all equally deep, and "
            "no metadata.csv or metadata.jsonl there gives their labels or captions."
        )
    keys = (entry.image_key, entry.label_key, entry.caption_key, entry.choice_keys)
    if is_winoground(rows) and not any(keys):
        return open_winoground(name, split, source)
    if set(COLUMNS) <= set(rows.features) and not any(keys):
        return open_associations(name, split, source)
    columns = chosen_columns(name, rows, entry)
    images = image_column(name, rows, columns.image, source.root)
    labels, prompts = None, None
    if columns.label is not None:

        def other_splits() -> Iterator[Any]:
            for other in source.splits:
                if other != split:
                    yield split_source(name, reference, other, entry, offline).rows

        labels, prompts = labels_of(name, rows, columns.label, entry, other_splits)
    captions = None if columns.caption is None else captions_of(name, rows, columns.caption)
    choices = choices_of(name, rows, columns.choices) if columns.choices else None
    return LoadedDataset(
        name=name,
        split=split,
        fingerprint=fingerprint.of_contents([image.pixels for image in images.contents], labels, captions or choices),
        ids=[str(index) for index in range(len(rows))],
        read=images,
        labels=labels,
        prompts=prompts,
        captions=captions,
        choices=choices,
        digests=[image.sha256 for image in images.contents],
        remarks=(*source.remarks, *_unread(source), *contents.remarks(images.contents)),
        revision=source.revision,
    )


def _unread(source: SplitSource) -> Iterator[str]:
    """What the reader of image folders passes over without a word."""
    if source.kind != "imagefolder" or not source.root.is_dir():
        return
    from datasets.packaged_modules.imagefolder.imagefolder import ImageFolder

    known = {*ImageFolder.EXTENSIONS, ".md", ".json", ".jsonl", ".csv", ".parquet", ".yaml", ".zip", ".tar", ".gz"}
    yield from contents.unread(path for path in sorted(source.root.rglob("*")) if path.suffix.lower() not in known)

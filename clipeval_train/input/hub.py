"""``hf:`` as a source: the Parquet files of the training split of a data set of the hub or of this machine."""

from __future__ import annotations

import dataclasses
from typing import Any

from clipeval.config import DatasetEntry
from clipeval.datasets.adapters.hf_source import split_source
from clipeval.datasets.adapters.parquet_rows import ParquetRows
from clipeval.errors import DataError, few
from clipeval_train.config import SourceEntry
from clipeval_train.input.list_table import CAPTION_COLUMNS, IMAGE_COLUMNS
from clipeval_train.input.selection import Selection

_SPLIT = "train"
_IMAGES = (*IMAGE_COLUMNS, "img", "jpg", "png", "webp")
_CAPTIONS = (*CAPTION_COLUMNS, "captions", "text", "txt")


def hub_lists(entry: SourceEntry) -> tuple[list[str], Selection]:
    """The files of ``hf:NAME[:CONFIG][@REV]``, fetched unless they are here, and which of their columns are used: the
    one of images by its type or name, and the captions that ``entry`` names or the first of a usual name.

    Raises DataError for a data set that cannot be had, is not in Parquet or has no such columns.
    """
    where, reference = f"data: {entry.source}", entry.shards.removeprefix("hf:")
    source = split_source(where, reference, _SPLIT, DatasetEntry(spec=entry.shards, split=_SPLIT), offline=False)
    rows = source.rows
    if not isinstance(rows, ParquetRows):
        raise DataError(
            f"{where}: {entry.shards} is read for training where it is in Parquet with row groups of less than 512 MB, "
            f"and it is of the kind {source.kind}. Dataset.to_parquet writes such files."
        )
    images = [key for key, feature in rows.features.items() if type(feature).__name__ == "Image"]
    image = _first(where, rows, "image", images or _IMAGES)
    chosen = Selection.of(entry)
    if not chosen.captions:
        chosen = dataclasses.replace(chosen, captions=(_first(where, rows, "caption", _CAPTIONS),))
    return [str(path) for path in rows.files], dataclasses.replace(chosen, image=image)


def _first(where: str, rows: Any, what: str, names: Any) -> str:
    found = [name for name in names if name in rows.features]
    if not found:
        advice = "; `caption: COLUMN` names one" if what == "caption" else ""
        raise DataError(f"{where}: no column is known to hold {what}s: there are {few(rows.features)}{advice}.")
    return str(found[0])

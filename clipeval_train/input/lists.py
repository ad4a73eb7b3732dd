"""CSV, TSV and Parquet lists as a source: one row per sample with an image, or the path of its file, and captions."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import torch

from clipeval import digest
from clipeval.datasets.images import BYTE_LIMIT
from clipeval.errors import DataError, UsageError
from clipeval.paths import readable
from clipeval.regular import read_regular
from clipeval_train.config import SourceEntry
from clipeval_train.input import files
from clipeval_train.input.bad import BadSample, Tally
from clipeval_train.input.decode import decode_image, decode_text, usable_captions
from clipeval_train.input.list_table import caption_columns, complete_rows, read_list
from clipeval_train.input.selection import Selection, choose
from clipeval_train.input.shard_index import CAPTION_LIMIT

_EMPTY = "no image or no caption"
_UNIT = 4096
"""Rows that stay together when blocks are formed."""


class ListSource:
    """The rows of CSV, TSV or Parquet files. Image paths are relative to the file that lists them."""

    is_remote = False

    def __init__(self, entry: SourceEntry, lists: Sequence[str] = (), chosen: Selection | None = None) -> None:
        """Read the lists that ``entry`` names, or these.

        Raises DataError naming the file that cannot be read, or is without the columns or rows.
        """
        self.name, self._chosen = entry.source, chosen or Selection.of(entry)
        if entry.bad_shards or entry.counts == "stats":
            raise UsageError(f"data: {self.name}: bad_shards and counts are for shards; a bad row is a bad sample.")
        self._weights = [*(entry.caption or {"": 1.0}).values()]
        self._lists = [*lists] or files.expand(self.name, entry.shards)
        rows, complete, usable = len(self._table), len(complete_rows(self._table)), len(self._places)
        self.tally, self.dropped = Tally(rows), complete - usable
        if complete < rows:
            self.tally.bad[_EMPTY] = rows - complete
            self.tally.example = f"a row of {self._lists[0]}"
        if not usable:
            why = f" where {entry.where}" if self.dropped else ""
            raise DataError(f"data: {self.name}: no usable sample among the {rows:,} rows of '{entry.shards}'{why}.")
        self.units = np.diff([*range(0, usable, _UNIT), usable])
        contents = [digest.of_file(Path(path)) for path in self._lists]
        self.fingerprint = digest.of_value([contents, usable, *self._chosen.identity])

    def __getstate__(self) -> dict[str, object]:
        return {key: value for key, value in self.__dict__.items() if key not in ("_table", "_places")}

    def read(self, index: int, draw: float = 0.0) -> tuple[torch.Tensor, list[str]]:
        """Image ``[3, height, width]`` uint8 and captions of a sample; of those in several columns the ones that
        ``draw`` in [0, 1) chooses. Raises BadSample."""
        cells = [self._cell(name, index) for name in caption_columns(self._chosen)]
        found = [[text.as_py() for text in cell if text.is_valid] if cell.is_valid else [] for cell in cells]
        texts = found[choose(self._weights, [any(column) for column in found], draw)]
        if sum(map(len, texts)) > CAPTION_LIMIT:
            raise BadSample("caption too large")
        captions = usable_captions(map(decode_text, texts))
        image = self._cell("image", index)
        if image.is_valid:
            if image.as_buffer().size > BYTE_LIMIT:
                raise BadSample("image too large")
            return decode_image(image.as_py()), captions
        try:
            data = read_regular(self._path(index), BYTE_LIMIT)
        except (OSError, ValueError):
            raise BadSample("image file cannot be read") from None
        return decode_image(data), captions

    def where(self, index: int) -> str:
        """How messages call a sample: its image file, or its row."""
        if self._cell("image", index).is_valid:
            place = int(self._places[index])
            number = int(np.searchsorted(self._ends, place, side="right"))
            return f"{readable(self._lists[number])}: row {place - ([0, *self._ends][number])}"
        return readable(str(self._path(index)))

    def _path(self, index: int) -> Path:
        of_list, path = (os.fsdecode(self._cell(name, index).as_py()) for name in ("list", "path"))
        return Path(of_list).parent / path

    @cached_property
    def _table(self) -> pyarrow.Table:
        """All rows, each with the list it is from, as bytes. Arrow keeps them without an object per row, so that worker
        processes share them."""
        tables = [read_list(self._chosen, path) for path in self._lists]
        self._ends = np.cumsum([len(table) for table in tables]).tolist()
        return pyarrow.concat_tables(tables)

    @cached_property
    def _places(self) -> np.ndarray:
        """The rows in which nothing is missing, and that ``where`` keeps."""
        rows = complete_rows(self._table)
        return rows[self._table["kept"].to_numpy()[rows]]

    def _cell(self, column: str, index: int) -> Any:
        return self._table[column][int(self._places[index])]

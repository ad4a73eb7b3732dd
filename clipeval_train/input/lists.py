"""CSV and Parquet lists as a source: one row per sample with the path of an image file and its caption."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from clipeval import digest
from clipeval.datasets.images import BYTE_LIMIT
from clipeval.errors import DataError, UsageError
from clipeval.paths import readable
from clipeval.regular import read_regular
from clipeval.remote.copies import is_remote
from clipeval_train.config import SourceEntry
from clipeval_train.input import files
from clipeval_train.input.bad import BadSample, Tally
from clipeval_train.input.decode import decode_captions, decode_image

if TYPE_CHECKING:
    import pyarrow

SUFFIXES = (".csv", ".tsv", ".parquet")
_IMAGE_COLUMNS = ("image", "filepath")
_CAPTION_COLUMNS = ("caption", "title")
_COLUMNS = ("image", "caption")
_EMPTY = "no image path or no caption"
_UNIT = 4096
"""Rows that stay together when blocks are formed."""


class ListSource:
    """The rows of CSV, TSV or Parquet files. Image paths are relative to the file that lists them."""

    is_remote = False

    def __init__(self, entry: SourceEntry) -> None:
        """Read the lists. Raises DataError naming the file that cannot be read, or is without the columns or rows."""
        self.name = entry.source
        self._lists = files.expand(self.name, entry.shards)
        rows, usable = len(self._table), len(self._places)
        self.tally = Tally(rows)
        if usable < rows:
            self.tally.bad[_EMPTY] = rows - usable
            self.tally.example = f"a row of {self._lists[0]}"
        if not usable:
            raise DataError(f"data: {self.name}: no usable sample among the {rows:,} rows of '{entry.shards}'.")
        self.units = np.diff([*range(0, usable, _UNIT), usable])
        contents = [digest.of_file(Path(path)) for path in self._lists]
        self.fingerprint = digest.of_value([contents, usable])

    def __getstate__(self) -> dict[str, object]:
        return {key: value for key, value in self.__dict__.items() if key not in ("_table", "_places")}

    def read(self, index: int) -> tuple[torch.Tensor, list[str]]:
        """Image ``[3, height, width]`` uint8 and caption of a sample. Raises BadSample."""
        captions = decode_captions(self._cell("caption", index), is_json=False)
        try:
            data = read_regular(self._path(index), BYTE_LIMIT)
        except (OSError, ValueError):
            raise BadSample("image file cannot be read") from None
        return decode_image(data), captions

    def where(self, index: int) -> str:
        """How messages call a sample: its image file."""
        return readable(str(self._path(index)))

    def _path(self, index: int) -> Path:
        return Path(os.fsdecode(self._cell("list", index))).parent / os.fsdecode(self._cell("image", index))

    @cached_property
    def _table(self) -> pyarrow.Table:
        """All rows, each with the list it is from, as bytes. Arrow keeps them without an object per row, so that worker
        processes share them."""
        import pyarrow

        return pyarrow.concat_tables([_read(self.name, path) for path in self._lists])

    @cached_property
    def _places(self) -> np.ndarray:
        """The rows in which nothing is missing."""
        import pyarrow.compute as pc

        filled = [pc.fill_null(pc.greater(pc.binary_length(self._table[name]), 0), False) for name in _COLUMNS]
        return np.flatnonzero(pc.and_(*filled).to_numpy())

    def _cell(self, column: str, index: int) -> bytes:
        return self._table[column][int(self._places[index])].as_py()


def is_list(reference: str) -> bool:
    """Whether a reference names lists rather than shards."""
    return reference.lower().endswith(SUFFIXES)


def _read(source: str, path: str) -> pyarrow.Table:
    import pyarrow
    import pyarrow.csv
    import pyarrow.parquet

    where = f"data: {source}: {path}"
    if is_remote(path):
        raise UsageError(f"{where}: lists have to be on this machine, and so their images. Download it, or use shards.")
    try:
        if path.lower().endswith(".parquet"):
            names = _columns(where, pyarrow.parquet.read_schema(path).names)
            table = pyarrow.parquet.read_table(path, columns=names)
        else:
            parsing = pyarrow.csv.ParseOptions(delimiter="\t" if path.lower().endswith(".tsv") else ",")
            parsing.newlines_in_values = True
            as_bytes = dict.fromkeys([*_IMAGE_COLUMNS, *_CAPTION_COLUMNS], pyarrow.binary())
            options = pyarrow.csv.ConvertOptions(column_types=as_bytes)
            table = pyarrow.csv.read_csv(path, parse_options=parsing, convert_options=options)
            names = _columns(where, table.column_names)
        columns = [table[name].cast(pyarrow.binary()) for name in names]
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"{where}: cannot read the list: {error}. Check the path and the format.") from error
    origin = pyarrow.array([os.fsencode(path)]).dictionary_encode().take(pyarrow.array(np.zeros(len(table), np.int32)))
    return pyarrow.table([*columns, origin], names=[*_COLUMNS, "list"])


def _columns(where: str, names: list[str]) -> list[str]:
    found = []
    for wanted in (_IMAGE_COLUMNS, _CAPTION_COLUMNS):
        column = next((name for name in wanted if name in names), None)
        if column is None:
            raise DataError(f"{where}: has no column {' or '.join(wanted)}, only {', '.join(names)}.")
        found.append(column)
    return found

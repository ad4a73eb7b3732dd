"""Files of anybody, read within bounds: few kilobytes can unpack to more than a machine holds, a pipe never ends."""

from __future__ import annotations

import bz2
import gzip
import lzma
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

MOST_COLUMNS, MOST_BYTES = 2_000, 1 << 31
_UNPACK: dict[str, Callable[[Path], Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}


def content(file: Path) -> bytes:
    """The bytes of a regular file, those of a ``.gz``, ``.bz2`` or ``.xz`` unpacked. Raises OSError, ValueError for a
    file that is too large or no file, and what the unpacker raises for one that is broken."""
    _require_regular(file)
    unpack = _UNPACK.get(file.suffix)
    with unpack(file) if unpack else file.open("rb") as stream:
        data: bytes = stream.read(MOST_BYTES + 1)
    require_size(size=len(data))
    return data


def parquet(file: Path, most_rows: int) -> pd.DataFrame:
    """The table of a regular file, texts as categories: one that stands in every row is in memory once.

    Raises OSError, ValueError for a file that is too large or no file, and what the reader raises for one that is
    broken.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    _require_regular(file)
    with file.open("rb") as opened:  # by its path pyarrow reads no file whose name is not UTF-8
        metadata = pq.read_metadata(opened)
    unpacked = sum(metadata.row_group(number).total_byte_size for number in range(metadata.num_row_groups))
    require_size(metadata.num_rows, most_rows, metadata.num_columns, unpacked)
    kinds = pa.types.is_string, pa.types.is_large_string  # the second is what newer versions of pandas write
    texts = [f.name for f in metadata.schema.to_arrow_schema() if any(is_kind(f.type) for is_kind in kinds)]
    with file.open("rb") as opened:
        table = pq.ParquetFile(opened, metadata=metadata, read_dictionary=texts).read()
    table.validate(full=True)  # a text that is no UTF-8 would be an error of whoever looks at it first
    frame: pd.DataFrame = table.to_pandas(ignore_metadata=True)
    return frame.drop(columns=[name for name in frame if str(name).startswith("__index_level_")])


def require_size(rows: int = 0, most_rows: int = 0, columns: int = 0, size: int = 0) -> None:
    """Raises ValueError that names the bound which is passed. ``size`` is in bytes, unpacked."""
    bounds = (rows, most_rows, "rows"), (columns, MOST_COLUMNS, "columns"), (size, MOST_BYTES, "bytes")
    for count, most, what in bounds:
        if count > most:
            raise ValueError(f"it has more than {most:,} {what}, the most that is read of one file")


def _require_regular(file: Path) -> None:
    if not stat.S_ISREG(file.stat().st_mode):
        raise ValueError("it is not a file")

"""A split of a data set in Parquet, read where it lies: columns of labels and texts whole, images one by one."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from clipeval import digest
from clipeval.errors import DataError, first_line, foreign

_LARGEST_GROUP = 1 << 29
"""Bytes of a row group that is read for one image. Programs that know images write groups of 100 rows."""


class ParquetRows:
    """What clipeval uses of ``datasets.Dataset``, without a copy of the files."""

    def __init__(self, name: str, files: Sequence[Path], features: Any = None) -> None:
        """``features`` are what the data set's description says of the columns. Raises DataError for files that cannot
        be read or do not have the same columns."""
        import datasets

        self.files = list(files)
        self._footers = []
        for path in self.files:
            self._footers.append(_footer(name, path))
            if self._footers[-1].schema.names != self._footers[0].schema.names:
                raise DataError(f"{name}: {path} has other columns than {self.files[0].name}.")
        schema = self._footers[0].schema.to_arrow_schema()
        own = datasets.Features.from_arrow_schema(schema)
        self.features = features if features is not None and set(features) == set(own) else own

    def __len__(self) -> int:
        return sum(footer.num_rows for footer in self._footers)

    def __getitem__(self, column: str) -> list[Any]:
        """All values of a column."""
        import pyarrow.parquet as pq

        values: list[Any] = []
        for path in self.files:
            with path.open("rb") as opened:
                values += pq.ParquetFile(opened).read(columns=[column]).column(column).to_pylist()
        return values

    @property
    def fits(self) -> bool:
        """Whether a single image can be read without reading half a gigabyte."""
        groups = (footer.row_group(i) for footer in self._footers for i in range(footer.num_row_groups))
        return all(group.total_byte_size <= _LARGEST_GROUP for group in groups)

    @property
    def identity(self) -> str:
        """A digest of the content."""
        return digest.of_value(digest.of_files(self.files))

    def cells(self, column: str) -> Cells:
        """The values of an image column."""
        starts = [
            (file, group, footer.row_group(group).num_rows)
            for file, footer in enumerate(self._footers)
            for group in range(footer.num_row_groups)
        ]
        return Cells(self.files, column, starts)


def _footer(name: str, path: Path) -> Any:
    import pyarrow.parquet as pq

    def told(error: Exception) -> DataError:
        return DataError(f"{name}: {path}: cannot be read as Parquet: {first_line(error):.300}")

    with foreign(told), path.open("rb") as opened:  # by its path pyarrow reads no file whose name is not UTF-8
        return pq.read_metadata(opened)


@dataclass
class Cells:
    """An image column: ``cells[i][column]`` is {"bytes": ..., "path": ...}. The group of rows that was read last is
    kept, as images are read in their order; another process reads for itself."""

    files: Sequence[Path]
    column: str
    groups: Sequence[tuple[int, int, int]]
    """(file, row group in it, rows)"""
    _kept: tuple[int, list[Any]] = field(default=(-1, []), repr=False)

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: int) -> dict[str, Any]:
        number = bisect.bisect_right(self._ends, index)
        if self._kept[0] != number:
            self._kept = number, self._group(number)
        start = self._ends[number - 1] if number else 0
        return {self.column: _cell(self._kept[1][index - start])}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[index] for index in range(len(self)))

    def __getstate__(self) -> dict[str, Any]:
        return {"files": self.files, "column": self.column, "groups": self.groups, "_kept": (-1, [])}

    @cached_property
    def _ends(self) -> list[int]:
        return list(itertools.accumulate(rows for _, _, rows in self.groups))

    def _group(self, number: int) -> list[Any]:
        import pyarrow.parquet as pq

        file, group, _ = self.groups[number]
        with self.files[file].open("rb") as opened:
            values: list[Any] = (
                pq.ParquetFile(opened).read_row_group(group, columns=[self.column]).column(self.column).to_pylist()
            )
        return values


def _cell(value: Any) -> Any:
    """{"bytes": ..., "path": ...} of an image, or a list of them; None where there is nothing."""
    if isinstance(value, list):
        return [_cell(one) for one in value]
    if isinstance(value, bytes):
        return {"bytes": value, "path": None}
    if isinstance(value, str):
        return {"bytes": None, "path": value}
    return value if value is None else {"bytes": value.get("bytes"), "path": value.get("path")}

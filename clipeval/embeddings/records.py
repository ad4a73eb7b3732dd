"""Fixed-size records on disk, each with its own checksum.

A record is valid when its checksum matches, whoever wrote it and whenever: a killed writer, a full disk, a lost page or
a flipped bit leaves an invalid record, which is computed again, and never a wrong value. So there is no lock, no
manifest and no separate resume state; several processes may fill one file, in any order.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from clipeval.embeddings.entries import usable, write_at, writing

_CHECKSUM_BYTES = 4
_PIECE_BYTES = 1 << 26
"""What is written at once, so that writing needs little memory."""
_READ_BYTES = 1 << 20
"""What is read at once: it stays in a core's cache until it is checked and in its place."""


class RecordFile:
    """``n`` records of ``row_bytes`` bytes, addressed by index. The file is created on the first write.

    Objects may be sent to worker processes; each process opens the file for itself.
    """

    def __init__(self, path: Path, n: int, row_bytes: int) -> None:
        self.path = path
        self.n = n
        self.row_bytes = row_bytes

    @property
    def _stride(self) -> int:
        return _CHECKSUM_BYTES + self.row_bytes

    def read(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows ``[k, row_bytes]`` uint8 at ``indices``, and ``[k]`` bool: which are valid. Raises StoreError.

        The rows lie where they were read to, their checksums between them.
        """
        records = np.empty((len(indices), self._stride), np.uint8)
        rows, valid = records[:, _CHECKSUM_BYTES:], np.zeros(len(indices), bool)
        with usable(self.path), suppress(FileNotFoundError), self.path.open("rb", buffering=0) as file:
            for start, stop in _runs(indices, max(_READ_BYTES // self._stride, 1)):
                part: Any = records[start:stop]
                size = _read(file.fileno(), memoryview(part).cast("B"), int(indices[start]) * self._stride)
                sums = part[:, :_CHECKSUM_BYTES].copy().view("<u4")[:, 0].tolist()
                for row in range(size // self._stride):
                    valid[start + row] = _checksum(rows[start + row]) == sums[row]
        rows[~valid] = 0
        return rows, valid

    def write(self, indices: np.ndarray, rows: np.ndarray) -> None:
        """Store ``rows`` (``[k, ...]``, ``row_bytes`` bytes each) at ``indices``. Raises StoreError."""
        bodies = np.ascontiguousarray(rows).reshape(len(rows), -1).view(np.uint8)
        with usable(self.path), writing(self.path) as file:
            for start, stop in _runs(indices, _PIECE_BYTES // self._stride):
                records = (with_checksum(bodies[row].tobytes()) for row in range(start, stop))
                write_at(file, records, int(indices[start]) * self._stride)

    def flush(self) -> None:
        """Nothing is kept back: ``write`` has written it."""


def with_checksum(body: bytes) -> bytes:
    """A record: the checksum of the body, little-endian, then the body."""
    return _checksum(body).to_bytes(_CHECKSUM_BYTES, "little") + body


def _checksum(body: Any) -> int:
    """The lower 32 bits of XXH3, which takes a tenth of the time of CRC-32 and less than reading does."""
    return xxhash.xxh3_64_intdigest(body) & 0xFFFFFFFF


def split_records(data: bytes, body_bytes: int) -> list[bytes]:
    """The valid bodies of consecutive records; invalid ones and a cut-off tail are left out."""
    return [bytes(body) for body in _bodies(data, body_bytes) if body is not None]


def _bodies(data: bytes, body_bytes: int) -> Iterator[memoryview | None]:
    """The bodies of consecutive whole records, None for an invalid one."""
    view, stride = memoryview(data), _CHECKSUM_BYTES + body_bytes
    for offset in range(0, len(data) - stride + 1, stride):
        body = view[offset + _CHECKSUM_BYTES : offset + stride]
        checksum = int.from_bytes(view[offset : offset + _CHECKSUM_BYTES], "little")
        yield body if _checksum(body) == checksum else None


def _runs(indices: np.ndarray, longest: int) -> Iterator[tuple[int, int]]:
    """Positions ``[start, stop)`` of runs of consecutive indices, cut where they are longer than ``longest``."""
    longest = max(longest, 1)
    breaks = np.flatnonzero(np.diff(indices) != 1) + 1
    for start, stop in itertools.pairwise([0, *breaks.tolist(), len(indices)]):
        for first in range(start, stop, longest):
            yield first, min(first + longest, stop)


def _read(file: int, into: memoryview, offset: int) -> int:
    """Fill ``into`` from ``offset`` on: how many bytes there were, fewer only at the end of the file. One system call
    may give less than is asked for."""
    size = len(into)
    while into and (count := os.preadv(file, [into], offset)):
        into, offset = into[count:], offset + count
    return size - len(into)

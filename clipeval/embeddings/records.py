"""Fixed-size records on disk, each with its own checksum.

A record is valid when its checksum matches, whoever wrote it and whenever: a killed writer, a full disk, a lost page or
a flipped bit leaves an invalid record, which is computed again, and never a wrong value. So there is no lock, no
manifest and no separate resume state; several processes may fill one file, in any order.
"""

from __future__ import annotations

import errno
import itertools
import json
import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from clipeval import digest
from clipeval.errors import StoreError

_CHECKSUM_BYTES = 4


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
        """Rows ``[k, row_bytes]`` uint8 at ``indices``, and ``[k]`` bool: which of them are valid."""
        rows = np.zeros((len(indices), self.row_bytes), np.uint8)
        valid = np.zeros(len(indices), bool)
        try:
            file = os.open(self.path, os.O_RDONLY)
        except FileNotFoundError:
            return rows, valid
        except OSError as error:
            raise _unusable(self.path, error) from error
        try:
            for start, stop in _runs(indices):
                data = os.pread(file, (stop - start) * self._stride, int(indices[start]) * self._stride)
                for row in range(len(data) // self._stride):
                    record = memoryview(data)[row * self._stride : (row + 1) * self._stride]
                    body = record[_CHECKSUM_BYTES:]
                    if zlib.crc32(body) == int.from_bytes(record[:_CHECKSUM_BYTES], "little"):
                        rows[start + row] = np.frombuffer(body, np.uint8)
                        valid[start + row] = True
        finally:
            os.close(file)
        return rows, valid

    def write(self, indices: np.ndarray, rows: np.ndarray) -> None:
        """Store ``rows`` (``[k, ...]``, ``row_bytes`` bytes each) at ``indices``. Raises StoreError."""
        bodies = np.ascontiguousarray(rows).reshape(len(rows), -1).view(np.uint8)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(self.path, os.O_WRONLY | os.O_CREAT, 0o644)
            try:
                for start, stop in _runs(indices):
                    data = b"".join(with_checksum(bodies[row].tobytes()) for row in range(start, stop))
                    _write_all(file, data, int(indices[start]) * self._stride)
            finally:
                os.close(file)
        except OSError as error:
            raise _unusable(self.path, error) from error

    def flush(self) -> None:
        """Nothing is kept back: ``write`` has written it."""


def with_checksum(body: bytes) -> bytes:
    """A record: little-endian CRC-32 of the body, then the body."""
    return zlib.crc32(body).to_bytes(_CHECKSUM_BYTES, "little") + body


def split_records(data: bytes, body_bytes: int) -> list[bytes]:
    """The valid bodies of consecutive records; invalid ones and a cut-off tail are left out."""
    stride = _CHECKSUM_BYTES + body_bytes
    bodies = []
    for offset in range(0, len(data) - stride + 1, stride):
        body = data[offset + _CHECKSUM_BYTES : offset + stride]
        if zlib.crc32(body) == int.from_bytes(data[offset : offset + _CHECKSUM_BYTES], "little"):
            bodies.append(body)
    return bodies


def entry_folder(root: Path, kind: str, key: dict[str, Any]) -> Path:
    """The folder of one store entry, named by the digest of its whole key; the key itself lies in ``key.json``.

    Raises StoreError when the folder cannot be written.
    """
    name = digest.of_value(key)
    folder = root / kind / name[:2] / name
    record = folder / "key.json"
    if not record.exists():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            temporary = folder / f"key.json.{os.getpid()}.tmp"
            temporary.write_text(json.dumps(key, indent=1, sort_keys=True), "utf-8")
            temporary.replace(record)
        except OSError as error:
            raise _unusable(record, error) from error
    return folder


def _runs(indices: np.ndarray) -> list[tuple[int, int]]:
    """Positions ``[start, stop)`` of maximal runs of consecutive indices."""
    if not len(indices):
        return []
    breaks = np.flatnonzero(np.diff(indices) != 1) + 1
    edges = [0, *breaks.tolist(), len(indices)]
    return list(itertools.pairwise(edges))


def _write_all(file: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(file, view, offset)
        view, offset = view[written:], offset + written


def _unusable(path: Path, error: OSError) -> StoreError:
    reason = "no space is left on the device" if error.errno == errno.ENOSPC else (error.strerror or str(error))
    return StoreError(f"{path}: cannot use the cache: {reason}. Free space, or set CLIPEVAL_CACHE to another folder.")

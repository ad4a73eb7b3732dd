"""SHA-256 of files and values, with file digests remembered between runs."""

from __future__ import annotations

import contextlib
import hashlib
import json
import sqlite3
from pathlib import Path
from typing import Any

from clipeval.paths import cache_dir

_CHUNK_BYTES = 1 << 22


def of_value(value: Any) -> str:
    """Hex SHA-256 of a JSON-serialisable value, independent of dictionary order."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=True).encode()).hexdigest()


def of_file(path: Path) -> str:
    """Hex SHA-256 of a file's bytes. Remembered under the file's path, size, modification time and inode.

    Raises OSError when the file cannot be read.
    """
    path = path.resolve()
    stat = path.stat()
    key = f"{path}|{stat.st_size}|{stat.st_mtime_ns}|{stat.st_ino}"
    with contextlib.suppress(sqlite3.Error, OSError), _memory() as memory:
        if row := memory.execute("SELECT digest FROM digests WHERE key = ?", (key,)).fetchone():
            return str(row[0])
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    with contextlib.suppress(sqlite3.Error, OSError), _memory() as memory:  # the memory only saves time
        memory.execute("INSERT OR REPLACE INTO digests VALUES (?, ?)", (key, digest.hexdigest()))
        memory.commit()
    return digest.hexdigest()


def stamp(path: Path) -> tuple[int, int, int, int]:
    """(size, mtime_ns, ctime_ns, inode): as long as it stays, so does the file. Nobody can set the third. OSError."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


@contextlib.contextmanager
def _memory():  # type: ignore[no-untyped-def]
    folder = cache_dir()
    folder.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(folder / "digests.sqlite", timeout=10)
    try:
        connection.execute("CREATE TABLE IF NOT EXISTS digests (key TEXT PRIMARY KEY, digest TEXT NOT NULL)")
        yield connection
    finally:
        connection.close()

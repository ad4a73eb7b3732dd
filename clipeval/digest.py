"""SHA-256 of files and values, and a memory for what takes long to find out about files."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from clipeval.paths import cache_dir
from clipeval.regular import open_regular

_SETTLED_NS = 2_000_000_000
"""A file that changed less than this ago may change again without another time: clocks of file systems are coarse."""


def of_value(value: Any) -> str:
    """Hex SHA-256 of a JSON-serialisable value, independent of dictionary order."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=True).encode()).hexdigest()


def of_file(path: Path) -> str:
    """Hex SHA-256 of a regular file's bytes, remembered as long as it is unchanged.

    Raises OSError when the file cannot be read, is no regular file, or changes meanwhile.
    """
    return of_files([path])[0]


def of_files(paths: Sequence[Path], limit: int | None = None) -> list[str]:
    """``of_file`` of each, remembered as a whole. Raises OSError as there, and for a file larger than ``limit``."""
    return list(remembered("sha256", paths, lambda: [_hashed(path, limit) for path in paths]))


Stamp = tuple[int, int, int, int]


def stamp(path: Path) -> Stamp:
    """Size, modification time, change time (both in ns) and inode: while they stay, so do the bytes.

    The change time is the one that nobody can set. Raises OSError.
    """
    return stamp_of(path.stat())


def stamp_of(found: os.stat_result) -> Stamp:
    """The stamp of a file of which this is known."""
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino


def is_settled(known: Stamp, now_ns: int | None = None) -> bool:
    """Whether a file's last change is long enough ago for the next one to get another stamp."""
    return max(known[1], known[2]) < (time.time_ns() if now_ns is None else now_ns) - _SETTLED_NS


def remembered(question: Any, paths: Sequence[Path], find_out: Callable[[], Any]) -> Any:
    """``find_out()``, a JSON value that is a function of ``question`` and of what the files at ``paths`` hold, or what
    it was the last time, if the files have the same stamps.

    What is found out about files that changed just now is not kept, as git does with its index. The memory only saves
    time: a damaged or unwritable one is the same as none. Raises OSError for a file that changes meanwhile.
    """
    return remembered_of(question, [(os.path.abspath(path), stamp(path)) for path in paths], find_out)  # noqa: PTH100


def remembered_of(question: Any, files: Sequence[tuple[str, Stamp]], find_out: Callable[[], Any]) -> Any:
    """``remembered`` for files, by their absolute paths, whose stamps are known."""
    started = time.time_ns()
    key = of_value([question, [[path, *known] for path, known in files]])
    place = cache_dir() / "indexes" / f"{key}.json"
    with contextlib.suppress(OSError, ValueError):
        return _unsealed(place.read_bytes(), key)
    value = find_out()
    for path, known in files:
        if stamp_of(os.stat(path)) != known:  # noqa: PTH116  of a million files
            raise OSError(errno.EBUSY, "it changed while it was read", path)
    if all(is_settled(known, started) for _, known in files):
        with contextlib.suppress(OSError):
            _keep(place, _sealed(value, key))
    return value


def _hashed(path: Path, limit: int | None) -> str:
    with open_regular(path, limit) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sealed(value: Any, key: str) -> bytes:
    body = json.dumps(value).encode()
    return hashlib.sha256(key.encode() + body).hexdigest().encode() + b"\n" + body


def _unsealed(data: bytes, key: str) -> Any:
    """Raises ValueError for anything but what ``_sealed`` made for this ``key``."""
    seal, _, body = data.partition(b"\n")
    if seal != hashlib.sha256(key.encode() + body).hexdigest().encode():
        raise ValueError("damaged")
    return json.loads(body)


def _keep(place: Path, data: bytes) -> None:
    """Without a temporary twin that a kill would leave: what is written half is damaged, and made once more."""
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(data)

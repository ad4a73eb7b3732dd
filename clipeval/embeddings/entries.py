"""Where a store entry lies: a folder named by the digest of its whole key, in the cache or in a bucket.

Nothing here is flushed to the disk: what a power loss takes is computed again.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from clipeval import digest, paths
from clipeval.errors import StoreError

FORMAT = 3
"""Entries of another format lie in folders of other names, so neither is taken for the other."""

_KINDS = ("pixels", "images", "texts")
_EARLIER = [f"{kind}{suffix}" for kind in _KINDS for suffix in ("", *(f"-{number}" for number in range(2, FORMAT)))]
_MARKS = 16
_TRIES = 3


def shelf(kind: str) -> str:
    """The folder of all entries of a kind, below the cache or the bucket."""
    return f"{kind}-{FORMAT}"


def address(kind: str, key: dict[str, Any]) -> str:
    """The folder of one entry, below the cache or the bucket."""
    name = digest.of_value(key)
    return f"{shelf(kind)}/{name[:2]}/{name}"


def described(key: dict[str, Any]) -> bytes:
    """What ``key.json`` of an entry says."""
    return json.dumps({"version": FORMAT} | key, indent=1, sort_keys=True).encode()


def folder(kind: str, key: dict[str, Any], fresh: str | None = None) -> Path:
    """The folder of an entry in the cache, made where need be.

    ``fresh`` is the token of a run that wants nothing computed before it: an entry without its mark is emptied, then
    marked. Processes that do so at the same time may empty what the other has just computed, and compute it again.
    Raises StoreError.
    """
    entry = paths.cache_dir() / address(kind, key)
    with usable(entry):
        _keep(entry / "key.json", described(key))
        if fresh and (marks := with_mark(_content(entry / "fresh"), fresh)):
            for file in entry.glob("*.rec"):
                os.truncate(file, 0)  # not unlinked: another machine may be writing to it
            _keep(entry / "fresh", marks)
    return entry


def with_mark(marks: bytes, token: str) -> bytes | None:
    """``marks`` of an entry and ``token``'s; None where it is there already. Some older ones are kept, so that runs at
    the same time do not empty an entry for each other again and again."""
    known, mark = marks.split(), digest.of_value(token).encode()
    return None if mark in known else b"\n".join([*known[1 - _MARKS :], mark])


def earlier(cache: Path) -> str | None:
    """One line about what an earlier version has left in the folder ``cache`` and this one does not read; None where
    there is nothing."""
    left = [cache / name for name in _EARLIER if (cache / name).is_dir()]
    if not left:
        return None
    size = 0
    for file in (Path(top) / name for path in left for top, _, names in os.walk(path) for name in names):
        with suppress(OSError):
            size += file.stat().st_size
    names = " ".join(map(str, left))
    return f"{size / 1e9:,.3f} GB of embeddings and pixels of an earlier clipeval are no longer read. Delete: {names}"


@contextmanager
def usable(path: Path) -> Iterator[None]:
    """Turns every OSError inside into a StoreError about ``path``."""
    try:
        yield
    except OSError as error:
        reason = "no space is left on the device" if error.errno == errno.ENOSPC else (error.strerror or str(error))
        raise StoreError(
            f"{path}: cannot use the cache: {reason}. Free space, or set CLIPEVAL_CACHE to another folder."
        ) from error


@contextmanager
def writing(path: Path, flags: int = 0) -> Iterator[int]:
    """A file to write to, and its folder: made again where the cache was deleted under the run. Raises OSError."""
    for left in reversed(range(_TRIES)):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(path, os.O_WRONLY | os.O_CREAT | flags, 0o644)
            break
        except FileNotFoundError:  # deleted just now
            if not left:
                raise
    try:
        yield file
    finally:
        os.close(file)


def write_at(file: int, pieces: Iterable[bytes], offset: int) -> None:
    """All of ``pieces``, one behind the other from ``offset`` on. Raises OSError."""
    view = memoryview(b"".join(pieces))
    while view:
        written = os.pwrite(file, view, offset)
        view, offset = view[written:], offset + written


def _keep(path: Path, content: bytes) -> None:
    """Let a small file hold ``content``. It has no temporary twin: whoever opens the entry next mends what a kill left
    half, and those who write at the same time write the same."""
    if _content(path) != content:
        with writing(path) as file:
            write_at(file, [content], 0)
            os.ftruncate(file, len(content))


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""

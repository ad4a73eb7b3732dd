"""Files that are there whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

from clipeval.errors import StoreError, UsageError, few
from clipeval.plain import json_text

_TEMPORARY = re.compile(r"\..+\.[0-9a-f]+\.tmp")
_ABANDONED_SECONDS = 3600
NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL)
"""What ``flock`` says on file systems that have no locks, some NFS and Lustre among them."""
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_KEPT_OF_A_NAME = 40  # characters, of up to 4 bytes: names of files end at 255 bytes


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` fill a temporary file beside ``path`` and put it in place: after a power loss too, ``path`` is
    either as before or whole. Raises StoreError."""
    temporary = path.with_name(f".{path.name[:_KEPT_OF_A_NAME]}.{uuid.uuid4().hex}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(path.parent)
        write(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        advice = "Free space or choose another -o" if error.errno in _FULL else "Choose another -o"
        reason = f"{path.parent} is a file" if isinstance(error, FileExistsError) else error.strerror or error
        raise StoreError(f"{path}: cannot write: {reason}. {advice}.") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def replace_folder(folder: Path, fill: Callable[[Path], None]) -> None:
    """Let ``fill`` make a folder of files beside ``folder`` and put it in its place, with nothing left of the old one.
    Raises StoreError."""
    new, old = (folder.with_name(f".{folder.name[:_KEPT_OF_A_NAME]}.{uuid.uuid4().hex}.tmp") for _ in range(2))
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        fill(new)
        if os.path.lexists(folder):
            folder.rename(old)
        new.rename(folder)
    except OSError as error:
        raise StoreError(f"{folder}: cannot write: {error.strerror or error}. Choose another -o.") from error
    finally:
        for left in (new, old):
            shutil.rmtree(left, ignore_errors=True)


def require_own(folder: Path, names: Iterable[str], own: Callable[[], bool], what: str) -> None:
    """Raises UsageError where a folder that is to be written to has files of these names, unless they are our ``own``,
    those of ``what``."""
    there = [name for name in names if os.path.lexists(folder / name)]
    if there and not own():
        raise UsageError(
            f"{folder}: holds {few(there)}, and not of {what}: it would be overwritten. Choose another -o, or move it."
        )


def write_text(path: Path, text: str) -> None:
    """``text`` in UTF-8; lone surrogates, which it cannot hold, as escapes. Raises StoreError."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_bytes(path: Path, data: bytes) -> None:
    """``data`` as it is. Raises StoreError."""

    def fill(temporary: Path) -> None:
        temporary.write_bytes(data)

    write_atomically(path, fill)


def write_json(path: Path, value: Any, indent: int | None = 1) -> None:
    """``value`` as JSON in UTF-8, numbers that are none as null. Raises StoreError."""
    write_text(path, json_text(value, indent) + "\n")


@cache
def _remove_abandoned(folder: Path) -> None:
    """Remove what a killed process left half written in a folder, once per process and folder. A file that somebody
    still writes is younger."""
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            if _TEMPORARY.fullmatch(path.name) and time.time() - path.lstat().st_mtime > _ABANDONED_SECONDS:
                path.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries, so that a rename in it outlives a power loss. Some file systems cannot: no error."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

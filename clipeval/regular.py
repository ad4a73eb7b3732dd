"""Regular files, read without a risk: no pipe that never answers, no device without an end, no more than allowed."""

from __future__ import annotations

import errno
import os
import stat
from io import BufferedReader
from pathlib import Path


def open_regular(path: Path, limit: int | None = None) -> BufferedReader:
    """``path`` open for reading. Raises OSError for what is no regular file, and for more than ``limit`` bytes."""
    number = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        found = os.fstat(number)
        if stat.S_ISDIR(found.st_mode):
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", str(path))
        if limit is not None and found.st_size > limit:
            reason = f"its {found.st_size:,} bytes are more than the limit of {limit:,}"
            raise OSError(errno.EFBIG, reason, str(path))
        return os.fdopen(number, "rb")
    except BaseException:
        os.close(number)
        raise


def read_regular(path: Path, limit: int) -> bytes:
    """The bytes of a regular file. Raises OSError as ``open_regular``."""
    with open_regular(path, limit) as file:
        return file.read(os.fstat(file.fileno()).st_size)

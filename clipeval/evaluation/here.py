"""The folder that a run starts in."""

from __future__ import annotations

import atexit
import contextlib
import os
import tempfile
from pathlib import Path

from clipeval.errors import UsageError


def leave_removed_folder(out: Path) -> None:
    """Where the current folder has been removed, go to an empty one: libraries fail without any, and absolute paths
    need none. Raises UsageError for a relative ``out``."""
    with contextlib.suppress(FileNotFoundError):
        Path.cwd()
        return
    if not out.is_absolute():
        raise UsageError(f"-o {out}: the current folder has been removed. Give an absolute path, or change the folder.")
    empty = tempfile.mkdtemp(prefix="clipeval-")
    os.chdir(empty)
    atexit.register(os.rmdir, empty)

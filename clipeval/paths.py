"""Where clipeval keeps what it computes once (pixels, embeddings, downloaded shards, digests), and names of files."""

from __future__ import annotations

import os
from pathlib import Path


def cache_dir() -> Path:
    """``$CLIPEVAL_CACHE``, or the user's cache folder of this platform."""
    if chosen := os.environ.get("CLIPEVAL_CACHE"):
        return expand(chosen)
    import platformdirs

    return Path(platformdirs.user_cache_dir("clipeval", appauthor=False))


def readable(name: str) -> str:
    """A file's name as text: bytes of it that are no UTF-8 are written ``\\xNN``."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def expand(text: str | Path) -> Path:
    """A path with ``~`` as the home folder; as it is where there is no such home."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return Path(text)


def with_home(reference: str) -> str:
    """``reference``, a path or several with ``::`` between them, with ``~`` as the home folder: no shell expands it
    behind a comma or a colon. All else stays as it is written."""
    parts = reference.split("::")
    return "::".join(str(expand(part)) if part.startswith("~") else part for part in parts)


def exists(path: Path) -> bool:
    """Whether there is anything at a path; nothing is where the name is too long, or holds a NUL."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False

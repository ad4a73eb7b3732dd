"""Room for pixels, which are many: within ``$CLIPEVAL_PIXELS`` bytes, those that were used longest ago go first."""

from __future__ import annotations

import os
import re
import shutil
from contextlib import suppress
from pathlib import Path

from clipeval import paths
from clipeval.embeddings import entries
from clipeval.errors import UsageError

_VARIABLE = "CLIPEVAL_PIXELS"
_USUAL = 200 * 10**9
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_SIZE = re.compile(r"\s*(\d{1,15}(?:\.\d{1,9})?)\s*([kmgt]?)b?\s*", re.IGNORECASE)


def limit() -> int:
    """The bytes that pixels may take. Raises UsageError for a variable that is no size."""
    text = os.environ.get(_VARIABLE, "")
    if not text.strip():
        return _USUAL
    if not (found := _SIZE.fullmatch(text)):
        raise UsageError(f"{_VARIABLE}={text:.80}: expected a size, as 50GB, or 0 for none.")
    return int(float(found[1]) * _UNITS[found[2].lower()])


def make(entry: Path, size: int) -> bool:
    """Whether ``size`` bytes of pixels may lie in the store's ``entry``, which is used now. Raises UsageError."""
    most = limit()
    if size > most:
        return False
    with suppress(OSError):
        os.utime(entry)
    others = [key.parent for key in (paths.cache_dir() / entries.shelf("pixels")).glob("*/*/key.json")]
    known = sorted(found for path in others if path != entry and (found := _used(path)))
    taken = size + sum(held for _, held, _ in known)
    for _, held, path in known:
        if taken <= most:
            break
        shutil.rmtree(path, ignore_errors=True)
        taken -= held
    return True


def _used(entry: Path) -> tuple[int, int, Path] | None:
    """When an entry was used last, the bytes on disk that it takes, and itself; None where it is gone."""
    try:
        held = sum(file.stat().st_blocks * 512 for file in entry.iterdir())
        return entry.stat().st_mtime_ns, held, entry
    except OSError:
        return None

"""Which machines share a cache: all that see the same mark in it."""

from __future__ import annotations

import os
import time
import uuid
from contextlib import suppress
from pathlib import Path

from clipeval import paths
from clipeval.embeddings.bucket import store_url
from clipeval.embeddings.entries import usable

_KEPT_SECONDS = 7 * 24 * 3600


def mark(run_token: str) -> str:
    """The mark of one run in this machine's cache, made where there is none: equal for two machines whose embeddings
    lie in the same place. Raises UsageError or StoreError."""
    if url := store_url():
        return url
    folder = paths.cache_dir() / "meetings"
    name = uuid.uuid4().hex
    place, own = folder / run_token, folder / f"{run_token}.{name}"
    with usable(folder):
        folder.mkdir(parents=True, exist_ok=True)
        _remove_old(folder)
        own.write_text(name)
        try:
            os.link(own, place)  # by the first, and whole
        except FileExistsError:
            pass
        except OSError:  # a file system without links: this machine counts as one that shares with none
            return name
        finally:
            own.unlink()
        return place.read_text()


def _remove_old(folder: Path) -> None:
    for path in folder.iterdir():
        with suppress(OSError):
            if path.stat().st_mtime < time.time() - _KEPT_SECONDS:
                path.unlink()

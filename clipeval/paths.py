"""Where clipeval keeps what it computes once: pixels, embeddings, downloaded shards, file digests."""

from __future__ import annotations

import os
from pathlib import Path


def cache_dir() -> Path:
    """``$CLIPEVAL_CACHE``, or the user's cache folder of this platform."""
    if chosen := os.environ.get("CLIPEVAL_CACHE"):
        return Path(chosen).expanduser()
    import platformdirs

    return Path(platformdirs.user_cache_dir("clipeval", appauthor=False))

"""Waiting for what another process does."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable


def until(
    is_true: Callable[[], object],
    seconds: float = 120,
    said: Callable[[], object] = lambda: "",
    process: subprocess.Popen | None = None,
) -> None:
    """Wait until something is true, within so many seconds and for as long as ``process`` lives; what was ``said`` is
    shown where it does not become so."""
    limit = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < limit, said()
        assert process is None or process.poll() is None, said()
        time.sleep(0.05)

"""SIGTERM and SIGINT as a request to come to an end."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def noted() -> Iterator[list[int]]:
    """While the block runs, the two signals are only added to this list: Slurm and torchrun send one before they kill,
    and launchers repeat what a terminal has sent already.

    Outside the main thread, where Python delivers no signals, nothing is changed.
    """
    received: list[int] = []
    kinds = (signal.SIGTERM, signal.SIGINT) if threading.current_thread() is threading.main_thread() else ()
    before = {kind: signal.signal(kind, lambda number, frame: received.append(number)) for kind in kinds}
    try:
        yield received
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)


def left_to_parent(worker: int) -> None:
    """Of a process that prepares batches: launchers signal the whole group or job, and what comes of it is for the
    process that trains to decide. It needs this one for the step at hand, and ends it; without it, it ends itself."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)

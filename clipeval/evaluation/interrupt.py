"""Signals that ask a run to end: Ctrl-C, and what Slurm, Kubernetes and a closed terminal send."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from clipeval.errors import EXIT_INTERRUPTED

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def interruptible() -> Iterator[None]:
    """Within the block the first signal raises KeyboardInterrupt, a second one ends the process at once.

    A signal that is ignored stays so (``nohup``). Outside the main thread, where Python delivers none, nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {kind: signal.getsignal(kind) for kind in _SIGNALS}
    taken = [kind for kind in _SIGNALS if before[kind] != signal.SIG_IGN]

    interrupted = False

    def first(number: int, frame: FrameType | None) -> None:
        nonlocal interrupted
        interrupted = True
        _take(taken, _at_once)
        raise KeyboardInterrupt

    _take(taken, first)
    try:
        yield
    finally:
        if not interrupted:  # after one, a second signal may come until the process has ended
            for kind in taken:
                signal.signal(kind, before[kind])


def _take(kinds: list[signal.Signals], handler: object) -> None:
    for kind in kinds:
        signal.signal(kind, handler)  # type: ignore[arg-type]


def _at_once(number: int, frame: FrameType | None) -> None:
    for process in multiprocessing.active_children():  # the decoders
        process.kill()
    os._exit(EXIT_INTERRUPTED)

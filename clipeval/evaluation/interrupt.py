"""Signals that ask a run to end: Ctrl-C, and what Slurm, Kubernetes and a closed terminal send."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from clipeval.errors import EXIT_INTERRUPTED
from clipeval.exits import interrupt

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_received = False


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
    owner = os.getpid()

    def first(number: int, frame: FrameType | None) -> None:
        global _received
        if os.getpid() != owner:  # a decoder: they are told too where the whole group is
            os._exit(EXIT_INTERRUPTED)
        _received = True
        for kind in taken:
            signal.signal(kind, _at_once)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch would raise an error of its own for every decoder
        sys.unraisablehook = _ignore  # what finalisers of half-made objects say
        interrupt(frame)

    for kind in taken:
        signal.signal(kind, first)
    try:
        yield
    finally:
        if not _received:  # after one, a second signal may come until the process has ended
            for kind in taken:
                signal.signal(kind, before[kind])


def look() -> None:
    """Raises KeyboardInterrupt where a signal has come. Python swallows what a handler raises in the middle of a fork
    or of a finaliser, so a long piece of work looks now and then."""
    if _received:
        raise KeyboardInterrupt


def _ignore(_: object) -> None:
    pass


def _at_once(number: int, frame: FrameType | None) -> None:
    for process in multiprocessing.active_children():  # the decoders
        process.kill()
    os._exit(EXIT_INTERRUPTED)

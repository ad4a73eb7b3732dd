"""SIGTERM and SIGINT as a request to come to an end."""

from __future__ import annotations

import signal
import threading
from contextlib import AbstractContextManager
from types import FrameType, TracebackType
from typing import Any


class StopSignals(AbstractContextManager["StopSignals"]):
    """While the block runs, the two signals only set ``received``: Slurm and torchrun send one before they kill.

    Further ones change nothing, because launchers repeat what a terminal has sent already. Outside the main thread,
    where Python delivers no signals, nothing is changed.
    """

    def __init__(self) -> None:
        self.received = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            for kind in (signal.SIGTERM, signal.SIGINT):
                self._before[kind] = signal.signal(kind, self._receive)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = True


def left_to_parent(worker: int) -> None:
    """Of a process that prepares batches: launchers signal the whole group or job, and what comes of it is for the
    process that trains to decide. It needs this one for the step at hand, and ends it; without it, it ends itself."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)

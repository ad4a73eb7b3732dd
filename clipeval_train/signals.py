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

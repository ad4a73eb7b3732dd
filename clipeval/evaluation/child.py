"""A Python process at the other end of a pipe: a fresh one, whatever this one has imported, opened or forked.

It has a process group of its own, so that a Ctrl-C is this process's to answer, and that what the child has started
ends with it. A child whose pipe closes has nobody to work for and ends at once.
"""

from __future__ import annotations

import importlib
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from types import FrameType
from typing import Any

from clipeval.errors import EXIT_INTERRUPTED

_PROGRAM = """
import sys
from multiprocessing.connection import Connection
pipe = Connection(int(sys.argv[1]))
sys.path[:] = pipe.recv()
from clipeval.evaluation.child import serve
serve(pipe)
"""
_SECONDS_TO_END = 10.0

Inbox = queue.SimpleQueue[Any]
"""What the parent sends; None when it wants the child to end."""


class Child:
    """A process that calls ``module:function(inbox, send, *arguments)``; ``send`` takes what this side receives."""

    def __init__(
        self, address: str, *arguments: Any, environment: dict[str, str] | None = None, quiet: bool = False
    ) -> None:
        """``environment`` is set beside this process's own; a ``quiet`` child writes nothing to stderr."""
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _PROGRAM, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL if quiet else None,
                env=os.environ | (environment or {}),
                process_group=0,
            )
        self.pipe = Connection(ours.detach())
        self.send(sys.path)
        self.send((address, arguments))

    def send(self, message: Any) -> None:
        """Send something; a child that has ended gets nothing."""
        with suppress(OSError):
            self.pipe.send(message)

    def received(self) -> list[Any]:
        """What has come, without waiting. Raises EOFError when nothing has and the child has ended."""
        found: list[Any] = []
        try:
            while self.pipe.poll():
                found.append(self.pipe.recv())
        except (EOFError, OSError):
            if not found:
                raise EOFError from None
        if not found and self._process.poll() is not None and not self.pipe.poll():
            raise EOFError  # what it has started may hold its end of the pipe
        return found

    def ending(self) -> str:
        """How it has ended, for people."""
        with suppress(subprocess.TimeoutExpired):
            code = self._process.wait(_SECONDS_TO_END)
            if code == -signal.SIGKILL:
                return "it was killed (signal 9), perhaps for want of memory"
            return f"it was ended by signal {-code}" if code < 0 else f"it ended with exit code {code}"
        return "it has closed its pipe"

    def end(self, at_once: bool = False) -> None:
        """End it and all that it has started, with or without a chance to do so itself."""
        if not at_once:
            self.send(None)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_SECONDS_TO_END)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self.pipe.close()


def serve(pipe: Connection) -> None:
    """The child's side: call what the parent names. Whatever that raises ends the process with the traceback."""
    _answer_signals()
    address, arguments = pipe.recv()
    inbox: Inbox = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(pipe, inbox), daemon=True).start()
    module, _, name = address.partition(":")
    function: Callable[..., None] = getattr(importlib.import_module(module), name)
    function(inbox, pipe.send, *arguments)


def _listen(pipe: Connection, inbox: Inbox) -> None:
    try:
        while (message := pipe.recv()) is not None:
            inbox.put(message)
        inbox.put(None)
        pipe.poll(None)  # until the parent has closed its end: by then this process has ended, or is not wanted
    except (EOFError, OSError):
        pass
    os.killpg(0, signal.SIGKILL)


def _answer_signals() -> None:
    """Signals to all processes of a run are the parent's to answer; the processes started here end."""
    owner = os.getpid()

    def answer(number: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:
            os._exit(EXIT_INTERRUPTED)

    for kind in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(kind, answer)

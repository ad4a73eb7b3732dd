"""Workers on the nodes of a Ray cluster. Another process holds the connection: where the cluster dies, Ray ends it."""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import wait
from pathlib import Path
from types import TracebackType

from clipeval.errors import ClipevalError, MeasureError, UsageError, counted
from clipeval.evaluation.child import Child
from clipeval.evaluation.crew import Event
from clipeval.evaluation.environment import handed_over
from clipeval.evaluation.request import Options
from clipeval.evaluation.schedule import Unit

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


@contextmanager
def cluster(address: str | None) -> Iterator[None]:
    """A connection to the cluster at ``address`` or ``$RAY_ADDRESS``; without either, a Ray of this machine alone.

    Raises UsageError when ray is not installed, MeasureError when the cluster does not answer.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise UsageError("a Ray cluster is asked for and ray is not installed: pip install 'clipeval[ray]'") from error
    address = _address(address)
    on_terminate = signal.getsignal(signal.SIGTERM)
    try:
        _require_listener(address)
        ray.init(address=address, log_to_driver=False, include_dashboard=False, logging_level=logging.ERROR)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, on_terminate)  # Ray puts its own in place
    except (OSError, ValueError, RuntimeError) as error:
        raise MeasureError(
            f"--ray-address {address}: cannot join this Ray cluster: {reason_of(error)} Is it running, reachable from "
            "here, and of the same RAY_AUTH_MODE?"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _address(given: str | None) -> str:
    return given or os.environ.get("RAY_ADDRESS") or "local"


def _require_listener(address: str) -> None:
    """Raises OSError when nothing listens at HOST:PORT: Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=10).close()


def reason_of(error: BaseException) -> str:
    """What an error of Ray says in one line: that of the worker where it has one, else its own first."""
    cause = getattr(error, "cause", None)
    if cause is not None and not isinstance(cause, str):
        return f"{type(cause).__name__}: {cause}".splitlines()[0]
    lines = [line.strip() for line in _COLOUR.sub("", str(error)).splitlines() if line.strip()]
    raised = [line for line in lines if re.match(r"[\w.]*(Error|Exception)\b.*:", line)]
    return (raised[-1:] or lines[:1] or [type(error).__name__])[0]


class RayCrew:
    """A crew (``crew.Crew``) on the cluster that ``options`` name."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._where = _address(options.ray_address)
        self._most = 0
        self._settled: int | None = None
        self._total = ""
        self._asked: int | None = None

    @property
    def asked(self) -> int | None:
        """As ``Crew.asked``."""
        return self._asked

    def staff(self, most: int) -> None:
        """As ``Crew.staff``."""
        if not self._most or self._most != most < (self._asked or 0):  # else it would hear of every unit that is done
            self._most = most
            self._child.send(("staff", most))

    def hand(self, seat: int, unit: Unit) -> None:
        """As ``Crew.hand``."""
        self._child.send(("hand", seat, unit))

    def wait(self, seconds: float) -> Sequence[Event]:
        """As ``Crew.wait``."""
        wait([self._child.pipe], seconds)
        try:
            received = self._child.received()
        except EOFError:
            raise MeasureError(
                f"the Ray cluster at {self._where} is gone. What was finished is kept; the same command continues."
            ) from None
        events: list[Event] = []
        for message in received:
            if isinstance(message, ClipevalError):
                raise message
            if isinstance(message, tuple):
                self._asked, self._settled, self._total = message
            else:
                events.append(message)
        return events

    def dismiss(self, seat: int) -> None:
        """As ``Crew.dismiss``."""
        self._child.send(("dismiss", seat))

    def close(self, node: str) -> None:
        """As ``Crew.close``."""
        self._asked = None  # until it is done
        self._child.send(("close", node))

    def summary(self, nodes: Sequence[str]) -> str:
        """As ``Crew.summary``."""
        if len(nodes) != self._settled:
            return ""
        return f"{counted(len(nodes), 'worker')} on {counted(len(set(nodes)), 'node')}, {self._total}"

    def __enter__(self) -> RayCrew:
        words = self._options, handed_over(), str(Path.cwd())
        self._child = Child("clipeval.evaluation.foreman:serve", *words, quiet=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._child.end()

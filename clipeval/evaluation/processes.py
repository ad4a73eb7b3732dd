"""Workers on this machine: a process for each of its GPUs, or for each share of its cores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from multiprocessing.connection import wait
from pathlib import Path
from types import TracebackType
from typing import Any

from clipeval import machine
from clipeval.errors import counted
from clipeval.evaluation.child import Child, Inbox
from clipeval.evaluation.crew import Answered, Event, Lost, Machine, Started
from clipeval.evaluation.request import Options
from clipeval.evaluation.schedule import Unit
from clipeval.evaluation.worker import Worker

_LONGEST_WAIT = 0.5
"""Seconds after which processes are looked at whose end nothing tells."""
_HERE = "this machine"


class Processes:
    """A crew (``crew.Crew``) of processes of this machine, which share its cache."""

    def __init__(self, options: Options) -> None:
        self._on_gpu = options.device == "cuda"
        gpus = machine.gpus() if self._on_gpu else []
        self._places: list[str | None] = [*gpus] or [None] * (options.workers or machine.default_workers())
        share = max(machine.cores() // len(self._places), 1)
        decoders = options.decoders // len(self._places) if self._on_gpu and options.workers else share - 1
        self._options = replace(options, workers=decoders)
        self._children: dict[int, Child] = {}
        self._at: dict[int, str | None] = {}
        """The place of each seat."""
        self._next = 0

    @property
    def asked(self) -> int:
        """How many workers there are."""
        return len(self._children)

    def staff(self, most: int) -> None:
        """As ``Crew.staff``."""
        free = list(self._places)
        for taken in self._at.values():
            free.remove(taken)
        for place in free[: max(most - len(self._children), 0)]:
            seen = {} if place is None else {"CUDA_VISIBLE_DEVICES": place}
            child = Child(f"{__name__}:serve", self._options, str(Path.cwd()), environment=seen)
            self._children[self._next], self._at[self._next] = child, place
            self._next += 1

    def hand(self, seat: int, unit: Unit) -> None:
        """As ``Crew.hand``."""
        self._children[seat].send(unit)

    def wait(self, seconds: float) -> Sequence[Event]:
        """As ``Crew.wait``."""
        wait([child.pipe for child in self._children.values()], min(seconds, _LONGEST_WAIT))
        return [event for seat in list(self._children) for event in self._heard(seat)]

    def _heard(self, seat: int) -> list[Event]:
        child = self._children[seat]
        try:
            return [self._event(seat, message) for message in child.received()]
        except EOFError:
            lost = Lost(seat, _HERE, self._where(seat), child.ending())
            self.dismiss(seat)
            return [lost]

    def _event(self, seat: int, message: Any) -> Event:
        kind, content = message
        if kind == "answer":
            return Answered(seat, content)
        if isinstance(content, Machine):
            return Started(seat, _HERE, self._where(seat), content)
        self.dismiss(seat)
        return Lost(seat, _HERE, self._where(seat), str(content), final=True)

    def _where(self, seat: int) -> str:
        place = self._at.get(seat)
        return _HERE if place is None else f"GPU {place}"

    def dismiss(self, seat: int) -> None:
        """As ``Crew.dismiss``."""
        self._at.pop(seat, None)
        if child := self._children.pop(seat, None):
            child.end(at_once=True)

    def close(self, node: str) -> None:
        """As ``Crew.close``: there is this node only."""
        self._places = []
        for seat in list(self._children):
            self.dismiss(seat)

    def summary(self, nodes: Sequence[str]) -> str:
        """As ``Crew.summary``."""
        if len(nodes) < len(self._children):
            return ""
        where = counted(len(self._places), "GPU") if self._on_gpu else counted(machine.cores(), "core")
        return f"{counted(len(nodes), 'worker')} on {where}"

    def __enter__(self) -> Processes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for child in self._children.values():
            child.end(at_once=True)


def serve(inbox: Inbox, send: Callable[[Any], None], options: Options, folder: str) -> None:
    """What the process of a worker does."""
    worker = Worker()
    send(("start", worker.start(options, folder)))
    while (unit := inbox.get()) is not None:
        answer, _ = worker.work(unit)
        send(("answer", answer))

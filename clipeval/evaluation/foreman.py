"""The process that holds the connection to a Ray cluster: it has workers on its nodes and passes on what they say.

Workers are had node by node, so each node's are as large as that node allows. Nodes that come later get workers too.
Of a given number of workers on GPUs those that no node has a GPU for are asked for all the same: an autoscaler reads
that as demand.
"""

from __future__ import annotations

import queue
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from clipeval.errors import ClipevalError, MeasureError, counted
from clipeval.evaluation.actor import RayWorker
from clipeval.evaluation.child import Inbox
from clipeval.evaluation.crew import Answered, Lost, Machine, Started, Told
from clipeval.evaluation.ray import cluster, reason_of
from clipeval.evaluation.request import Options
from clipeval.evaluation.schedule import MOST_CRASHES, Unit
from clipeval.evaluation.shares import Node, largest, node_of, share, spread

_LOOK_SECONDS = 3.0
_FIRST_WORD_SECONDS, _NEXT_WORD_SECONDS = 5.0, 60.0


@dataclass
class _Seat:
    actor: Any
    node: str | None
    """None as long as Ray has not placed it, where Ray is to choose."""
    asks: dict[str, float]
    placed: bool = False
    cache: str = ""
    ready: bool = False
    held: str = ""
    unit: Unit | None = None
    piece: Any = None
    """What others may use of its unit, in the object store; None where nobody needs it."""


@dataclass
class _Kept:
    """A piece in the object store, the cache that has it anyway, and the seats that were given it."""

    unit: Unit
    cache: str
    reference: Any
    given: set[int] = field(default_factory=set)


def serve(
    inbox: Inbox, send: Callable[[Any], None], options: Options, environment: dict[str, str], folder: str
) -> None:
    """What the process does: hears from the dispatcher and from Ray in ``inbox``."""
    try:
        with cluster(options.ray_address):
            Foreman(inbox, send, options, environment, folder).run()
    except ClipevalError as error:
        send(error)


class Foreman:
    """Has workers on the nodes of the connected cluster."""

    def __init__(
        self, inbox: Inbox, send: Callable[[Any], None], options: Options, environment: dict[str, str], folder: str
    ) -> None:
        self._inbox, self._send = inbox, send
        self._options = replace(options, out=options.out.absolute())
        self._begin = environment, sys.path, folder
        self._most = 0
        self._seats: dict[int, _Seat] = {}
        self._next = 0
        self._nodes: dict[str, Node] = {}
        self._closed: set[str] = set()
        self._kept: list[_Kept] = []
        self._on_gpu = False
        self._demands = False
        """Whether workers are asked for that no node has room for."""
        self._in_vain = 0
        """How many of those Ray has placed where none can work."""
        self._placed_before = 0
        self._silent_since = time.monotonic()
        self._word_after = _FIRST_WORD_SECONDS

    def run(self) -> None:
        """Until the dispatcher wants an end. Raises ClipevalError."""
        self._choose_device()
        next_look = 0.0
        while True:
            try:
                message = self._inbox.get(timeout=max(next_look - time.monotonic(), 0.01))
            except queue.Empty:
                message = ("look",)
            if message is None:
                return
            self._hear(*message)
            if time.monotonic() >= next_look or message[0] in ("staff", "close", "dismiss"):
                self._look()
                next_look = time.monotonic() + _LOOK_SECONDS

    def _hear(self, kind: str, *content: Any) -> None:
        if kind == "staff":
            (self._most,) = content
        elif kind == "hand":
            self._hand(*content)
        elif kind == "dismiss":
            self._dismiss(*content)
        elif kind == "close":
            self._closed.add(*content)
            for number, seat in list(self._seats.items()):
                if seat.node in content:
                    self._dismiss(number)
        elif kind == "ended":
            self._ended(*content)

    # what the cluster has

    def _choose_device(self) -> None:
        """GPUs or cores. Raises MeasureError where GPUs are asked for, there are none, and none are to come."""
        self._see()
        device, there = self._options.device, int(sum(node.gpus for node in self._nodes.values()))
        self._on_gpu = device == "cuda" or (device == "auto" and there > 0)
        self._demands = self._on_gpu and bool(self._options.workers)
        if device == "auto" and there:
            self._send(Told(f"--device auto: cuda, as the cluster has {counted(there, 'GPU')}"))
        elif device == "auto":
            wait = "--device cuda --workers N waits for N GPUs"
            self._send(Told(f"--device auto: cpu, as no node of the cluster has a GPU now ({wait})"))
        elif self._on_gpu and not there and not self._demands:
            raise MeasureError(
                f"--device cuda: no node of the cluster has a GPU. The largest node is {self._largest}. Start nodes "
                "with GPUs first, say how many are to come (--workers N), or give --device cpu."
            )

    def _see(self) -> None:
        import ray

        alive = [node_of(found) for found in ray.nodes() if found["Alive"]]
        self._nodes = {node.id: node for node in alive}

    @property
    def _open(self) -> list[Node]:
        return [node for node in self._nodes.values() if node.id not in self._closed]

    @property
    def _largest(self) -> str:
        return largest(list(self._nodes.values()))

    def _look(self) -> None:
        """Have workers where they are lacking, and fewer where Ray has placed others."""
        self._see()
        counts, wanted = spread(self._open, self._options.workers, self._on_gpu), self._options.workers or self._most
        for number in [number for number, seat in self._seats.items() if not seat.placed]:
            node = self._seats[number].node
            surplus = len(self._seats) > wanted or not self._demands
            if surplus if node is None else self._count(node) > counts.get(node, 0):
                self._dismiss(number)
        for name, count in counts.items():
            while self._count(name) < count and len(self._seats) < min(wanted, self._most):
                self._hire(self._nodes[name], count)
        while self._demands and len(self._seats) < min(wanted, self._most):
            self._hire(None, 1)
        self._report()
        self._placed_before = self._placed
        self._say_that_it_waits()

    @property
    def _placed(self) -> int:
        return sum(seat.placed for seat in self._seats.values())

    def _report(self) -> None:
        """How many workers are asked for, how many of them are ready where that is not about to change, and what they
        have."""
        known = self._placed in (len(self._seats), self._placed_before)
        ready = sum(seat.ready for seat in self._seats.values())
        waiting = len(self._seats) - self._placed
        more = f"; {waiting:,} more asked for" if waiting else ""
        self._send((len(self._seats), ready if known and ready == self._placed else None, self._used() + more))

    def _count(self, node: str) -> int:
        return sum(seat.node == node for seat in self._seats.values())

    def _used(self) -> str:
        if self._on_gpu:
            return f"{self._placed} of {counted(int(sum(node.gpus for node in self._open)), 'GPU')}"
        return counted(int(sum(node.cores for node in self._open)), "core")

    def _say_that_it_waits(self) -> None:
        """Once after some seconds without any worker, then every minute."""
        if any(seat.placed for seat in self._seats.values()) or not self._most:
            self._silent_since, self._word_after = time.monotonic(), _FIRST_WORD_SECONDS
        elif time.monotonic() >= self._silent_since + self._word_after:
            self._word_after += _NEXT_WORD_SECONDS
            self._send(Told(self._waiting()))

    def _waiting(self) -> str:
        import ray

        kind, word = ("GPU", "GPU") if self._on_gpu else ("CPU", "core")
        has, free = (found.get(kind, 0) for found in (ray.cluster_resources(), ray.available_resources()))
        if not has:
            return f"waiting: no node of the cluster has a {word} yet; the largest is {self._largest}"
        asked = {seat.node: seat.asks for seat in self._seats.values()}.values()
        each = " or ".join(sorted({_cores(a["num_cpus"]) for a in asked if a["num_cpus"]})) or f"a {word}"
        return (
            f"waiting for the first of {counted(len(self._seats), 'worker')}, each with {each}: {free:g} of "
            f"{counted(int(has), word)} free, the rest is held by workers that start or by other programs"
        )

    # workers

    def _hire(self, node: Node | None, workers: int) -> None:
        """Ask for a worker on a node that has so many of them, or on one that is to come."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        if node is None:
            asks, where = {"num_cpus": 0.0, "num_gpus": 1.0}, {}
        else:
            asks = share(node, workers, self._on_gpu)
            where = {"scheduling_strategy": NodeAffinitySchedulingStrategy(node.id, soft=False)}
        worker: Any = ray.remote(RayWorker).options(max_restarts=0, **asks, **where)
        seat = _Seat(worker.remote(), node.id if node else None, asks)
        self._seats[self._next] = seat
        self._tell_end(self._next, seat.actor.node.remote())
        self._next += 1

    def _tell_end(self, number: int, reference: Any) -> None:
        """``_ended`` hears of it when a call of a worker is over."""
        reference.future().add_done_callback(lambda done: self._inbox.put(("ended", number, done)))

    def _ended(self, number: int, done: Any) -> None:
        seat = self._seats.get(number)
        if seat is None:  # dismissed
            return
        try:
            answer = done.result()
        except Exception as error:
            self._lose(number, seat, reason_of(error))
            return
        if not seat.placed:
            seat.node, seat.placed = answer, True
            self._start(number, seat)
        elif not seat.ready:
            self._started(number, seat, answer)
        else:
            self._answered(number, seat, answer)

    def _lose(self, number: int, seat: _Seat, reason: str) -> None:
        where, asked = self._where(seat), seat.node is None
        self._dismiss(number)
        self._see()
        gone = seat.node not in self._nodes
        if asked:
            self._count_in_vain()
        elif seat.ready or not gone:
            self._send(Lost(number, seat.node or "", where, reason, with_node=gone))

    def _count_in_vain(self) -> None:
        self._in_vain += 1
        if self._in_vain >= MOST_CRASHES:
            self._demands = False  # what comes is of no use

    def _start(self, number: int, seat: _Seat) -> None:
        if seat.node in self._closed:
            self._dismiss(number)
            self._count_in_vain()
            return
        if seat.node not in self._nodes:
            self._see()
        node = self._nodes.get(seat.node or "")
        cores = share(node, max(self._count(node.id), int(node.gpus)), self._on_gpu)["num_cpus"] if node else 1
        device = "cuda" if self._on_gpu else "cpu"
        options = replace(self._options, device=device, workers=max(int(cores) - 1, 0))
        self._tell_end(number, seat.actor.begin.remote(options, *self._begin))

    def _started(self, number: int, seat: _Seat, machine: Machine | ClipevalError) -> None:
        if isinstance(machine, ClipevalError):
            self._send(Lost(number, seat.node or "", self._where(seat), str(machine), final=True))
            self._dismiss(number)
            return
        seat.ready, seat.cache = True, machine.cache
        self._send(Started(number, seat.node or "", self._where(seat), machine))
        self._report()

    def _where(self, seat: _Seat) -> str:
        node = self._nodes.get(seat.node or "")
        return node.where if node else "a node that has left"

    def _dismiss(self, number: int) -> None:
        import ray

        if seat := self._seats.pop(number, None):
            ray.kill(seat.actor)

    # work

    def _hand(self, number: int, unit: Unit) -> None:
        seat = self._seats.get(number)
        if seat is None:
            return  # that it is lost was told
        seat.unit, seat.held = unit, unit.model
        held = {other.held for other in self._seats.values()}
        self._kept = [kept for kept in self._kept if kept.unit.model in held]
        caches = {other.cache for other in self._seats.values() if other.ready}
        lacking = [kept for kept in self._kept if number not in kept.given and _is_lacking(kept, unit, seat.cache)]
        for kept in lacking:
            kept.given.add(number)
        keep = len(caches) > 1 and unit.kind != "cell"
        pieces = [kept.reference for kept in lacking]  # in a list: one that is lost must not fail the call
        answer, piece = seat.actor.do.options(num_returns=2).remote(unit, pieces, keep)
        seat.piece = piece if keep else None
        self._tell_end(number, answer)

    def _answered(self, number: int, seat: _Seat, answer: Any) -> None:
        unit, seat.unit = seat.unit, None
        if unit is not None and seat.piece is not None and answer is None:
            self._kept.append(_Kept(unit, seat.cache, seat.piece))
        seat.piece = None
        self._send(Answered(number, answer))


def _cores(number: float) -> str:
    return counted(int(number), "core") if number >= 1 else f"{number:.2g} cores"


def _is_lacking(kept: _Kept, unit: Unit, cache: str) -> bool:
    """Whether a worker with ``cache`` that is to measure a cell has no other way to what was kept."""
    if unit.kind != "cell" or kept.unit.model != unit.model or kept.cache == cache:
        return False
    return kept.unit.kind == "texts" or kept.unit.cells[0].dataset == unit.cells[0].dataset

"""Hands the units of a plan to a crew of workers and what they answer to the journal, whatever the workers are.

A worker that dies is replaced and its work done again; a checkpoint that keeps killing workers becomes failed rows. A
machine with other code than this one gets no work; one that lacks a checkpoint or a data set gets none of it.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from clipeval.console import RunProgress, say
from clipeval.datasets.base import Dataset
from clipeval.errors import ClipevalError, MeasureError, ModelError, few
from clipeval.evaluation.arrivals import Arrivals
from clipeval.evaluation.cell import Cell
from clipeval.evaluation.crew import Answer, Answered, Crew, Event, Lost, Machine, Started, Told
from clipeval.evaluation.failures import Elsewhere, OutOfMemory
from clipeval.evaluation.interrupt import look
from clipeval.evaluation.journal import Journal
from clipeval.evaluation.plan import Plan
from clipeval.evaluation.schedule import MOST_CRASHES, Schedule, Unit
from clipeval.evaluation.workbench import Measured, scored_samples
from clipeval.results import provenance

_LOOK_SECONDS = 1.0
_PATIENCE_SECONDS = 300.0
"""How long work that no worker can do waits for those that have been asked for."""


@dataclass
class _Seat:
    """A worker that is ready: where it is, the unit it is at, and the checkpoint it has loaded."""

    node: str
    where: str
    unit: Unit | None = None
    held: str | None = None


class Dispatcher:
    """Measures cells with ``crew`` and hands everything to ``journal``."""

    def __init__(self, plan: Plan, journal: Journal, crew: Crew, progress: RunProgress) -> None:
        self._plan, self._journal, self._crew, self._progress = plan, journal, crew, progress
        self._schedule = Schedule([], {}, plan.request.options.batch_size)
        self._scored: dict[str, Dataset] = {}
        self._seats: dict[int, _Seat] = {}
        self._failed_starts: Counter[str] = Counter()
        self._closed: dict[str, str] = {}
        """Nodes that get no work, and why."""
        self._lacking: dict[str, dict[tuple[str, str], Elsewhere]] = defaultdict(dict)
        """What nodes cannot open."""
        self._last_start = time.monotonic()
        self._summary = ""

    def execute(self, cells: list[Cell], arriving: Arrivals) -> None:
        """Measure every cell, those of data sets that are ``arriving`` too. Only KeyboardInterrupt and a full disk here
        stop the run early.

        Raises MeasureError when no worker is to be had.
        """
        self._take_in(cells)
        schedule = self._schedule
        with self._crew:
            while schedule.unfinished or arriving.pending:
                look()
                if arriving.is_here:
                    self._take_in(arriving.next())
                self._crew.staff(schedule.widest)
                self._hand_out()
                self._drop_hopeless()
                for event in self._crew.wait(_LOOK_SECONDS):
                    self._meet(event)
                self._require_workers()
                self._summarise()

    def _take_in(self, cells: list[Cell]) -> None:
        splits = self._plan.splits()
        for cell in cells:
            if cell.dataset not in self._scored:
                self._scored[cell.dataset] = scored_samples(splits[cell.dataset, cell.entry.split], cell.limit)
        self._schedule.add(cells, {name: len(samples) for name, samples in self._scored.items()})

    def _hand_out(self) -> None:
        for number, seat in self._seats.items():
            if seat.unit is None:
                others = [other.held for other in self._seats.values() if other is not seat]
                seat.unit = self._schedule.next(seat.held, others, partial(self._can, seat.node))
                if seat.unit is not None:
                    seat.held = seat.unit.model
                    self._crew.hand(number, seat.unit)

    def _can(self, node: str, unit: Unit) -> bool:
        return not any(need in self._lacking[node] for need in _needs(unit))

    def _meet(self, event: Event) -> None:
        if isinstance(event, Told):
            self._progress.line(event.line)
        elif isinstance(event, Started):
            self._welcome(event)
        elif isinstance(event, Lost):
            self._replace(event)
        elif event.seat in self._seats:  # not of a worker that was dismissed
            self._receive(event)

    def _welcome(self, event: Started) -> None:
        if different := difference(event.machine):
            self._close(event.node, event.where, f"has {different}. It gets no work: install the same there.")
        elif event.node not in self._closed:
            self._seats[event.seat] = _Seat(event.node, event.where)
            self._last_start = time.monotonic()

    def _close(self, node: str, where: str, reason: str) -> None:
        """A node gets no work any more."""
        if node not in self._closed:
            self._closed[node] = f"{where} {reason}"
            say(self._closed[node])
        for number, seat in list(self._seats.items()):
            if seat.node == node:
                del self._seats[number]
                if seat.unit:
                    self._schedule.back(seat.unit)
        self._crew.close(node)

    def _receive(self, event: Answered) -> None:
        seat, answer = self._seats[event.seat], event.answer
        unit, seat.unit = seat.unit, None
        assert unit is not None
        if isinstance(answer, OutOfMemory):
            del self._seats[event.seat]
            self._crew.dismiss(event.seat)
            self._crashed(unit, str(answer))
        elif isinstance(answer, Elsewhere):
            self._schedule.back(unit)
            if answer.what not in self._lacking[seat.node]:
                self._lacking[seat.node][answer.what] = answer
                answer.args = (f"{seat.where} {answer}",)
                say(answer)
        else:
            self._schedule.done(unit)
            self._record(unit, answer)

    def _record(self, unit: Unit, answer: Answer) -> None:
        if isinstance(answer, Measured):
            self._journal.finish(unit.cells[0], self._scored[unit.cells[0].dataset], answer)
        elif isinstance(answer, ClipevalError) and unit.kind != "images":  # the cell meets the error of images again
            for cell in self._schedule.give_up(unit.model) if unit.kind == "texts" else unit.cells:
                self._journal.fail(cell, answer)

    def _replace(self, event: Lost) -> None:
        """A worker is lost: its work goes to others. The crew has another in its place."""
        seat = self._seats.pop(event.seat, None)
        if seat is not None:
            if seat.unit is not None and event.with_node:
                say(f"{seat.unit.label}: {seat.where} has gone. Others do it again.")
                self._schedule.back(seat.unit)
            elif seat.unit is not None:
                self._crashed(seat.unit, event.reason)
            return
        self._failed_starts[event.node] += 1
        if event.final or self._failed_starts[event.node] >= MOST_CRASHES:
            self._close(event.node, event.where, f"cannot run workers: {event.reason}")

    def _crashed(self, unit: Unit, reason: str) -> None:
        say(f"{unit.label}: a worker died: {reason}")
        for cell in self._schedule.crashed(unit):
            message = f"{MOST_CRASHES} workers died at {unit.model}, the last one at: {unit.label}: {reason}"
            self._journal.fail(cell, ModelError(message))

    def _require_workers(self) -> None:
        """Raises MeasureError where there are no workers and will be none."""
        if self._crew.asked == 0 and self._closed:
            raise MeasureError(f"no machine can do the work: {few(self._closed.values(), 3)}")

    def _drop_hopeless(self) -> None:
        """When nothing else is left, cells that no node can do become failed rows: until then others may come."""
        if not self._seats or any(seat.unit for seat in self._seats.values()):
            return
        coming = self._crew.asked is None or self._crew.asked > len(self._seats)
        if coming and time.monotonic() < self._last_start + _PATIENCE_SECONDS:
            return
        nodes = {seat.node for seat in self._seats.values()}
        for cell in self._schedule.hopeless(lambda unit: any(self._can(node, unit) for node in nodes)):
            needs = _needs(Unit("cell", (cell,)))
            found = [str(self._lacking[node][need]) for node in nodes for need in needs if need in self._lacking[node]]
            self._journal.fail(cell, MeasureError(" ".join(dict.fromkeys(found))))

    def _summarise(self) -> None:
        """Say how many workers there are, and again when that has changed."""
        summary = self._crew.summary([seat.node for seat in self._seats.values()]) if self._seats else ""
        if summary not in ("", self._summary):
            self._summary = summary
            self._progress.line(summary)


def _needs(unit: Unit) -> tuple[tuple[str, str], ...]:
    checkpoint = ("checkpoint", unit.model)
    return (checkpoint,) if unit.kind == "texts" else (checkpoint, ("data set", unit.cells[0].dataset))


def difference(machine: Machine) -> str:
    """What of what decides values a machine has otherwise than this one; empty where all is the same."""
    return "; ".join([*_other_sources(machine.sources), *_other_packages(machine.packages)])


def _other_sources(theirs: dict[str, str]) -> Iterator[str]:
    ours = provenance.sources()
    different = [name for name in sorted({*ours, *theirs}) if ours.get(name) != theirs.get(name)]
    if different:
        yield f"another clipeval (different: {few(different, 3)})"


def _other_packages(theirs: str) -> Iterator[str]:
    ours, there = (dict(word.split("==", 1) for word in text.split()) for text in (provenance.packages(), theirs))
    for name in {**ours, **there}:
        here, other = ours.get(name, "none"), there.get(name, "none")
        if here.partition("+")[0] != other.partition("+")[0]:  # torch's 2.9.1+cpu and 2.9.1+cu128 are one version
            yield f"{name} {other} and not {here}"

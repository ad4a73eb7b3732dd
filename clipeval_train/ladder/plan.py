"""What a ladder costs: parameters, compute, memory, hours and money, per run and in total."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from clipeval.console import show_lines
from clipeval.drawing import Column
from clipeval.errors import counted
from clipeval.tables import Sheet, human
from clipeval_train.ladder.grid import Ladder
from clipeval_train.ladder.processes import Slot
from clipeval_train.ladder.runs import Run, state
from clipeval_train.ladder.throughput import Throughput, measure
from clipeval_train.ladder.waiting import Waiting, left_to_do


@dataclass(frozen=True)
class Cost:
    """One run. ``samples`` are those seen at its end, ``own_samples`` without those that its trunk has seen: what it
    costs. ``gmacs`` are of one image-text pair's forward pass, ``gmacs_total`` of all own samples.

    ``samples_per_second`` and ``memory_gb`` of one process are measured; ``hours`` by the clock follow from them, with
    ``processes`` that do not slow each other down, and ``price`` where the plan file gives one per process and hour.
    What evaluation, saving and start-up take is not in them. ``settings`` are those that the run's model gives.
    """

    run: str
    state: str
    params: float
    gmacs: float
    samples: int
    own_samples: int
    gmacs_total: float
    processes: int
    samples_per_second: float
    memory_gb: float
    hours: float
    price: float | None
    after: str
    settings: dict[str, Any]

    @property
    def name(self) -> str:
        """As ``waiting.Item``."""
        return self.run

    @property
    def expense(self) -> float:
        """As ``waiting.Item``."""
        return self.gmacs_total


@dataclass(frozen=True)
class Plan:
    """All runs, those that are left to do, and how many processes train side by side."""

    costs: tuple[Cost, ...]
    left: tuple[Cost, ...]
    jobs: int

    def total(self, costs: Sequence[Cost] | None = None) -> dict[str, float | None]:
        """Sums over ``costs`` (None: all; hours are those of processes), the most memory that ``jobs`` processes need
        at once, and the hours by the clock when each run begins as soon as its turn comes (``waiting``)."""
        costs = self.costs if costs is None else costs
        prices = [cost.price for cost in costs if cost.price is not None]
        memory = sorted((cost.memory_gb for cost in costs for _ in range(cost.processes)), reverse=True)[: self.jobs]
        return {
            "runs": len(costs),
            "samples": sum(cost.own_samples for cost in costs),
            "gmacs_total": math.fsum(cost.gmacs_total for cost in costs),
            "memory_gb": math.fsum(memory),
            "hours": math.fsum(cost.hours * cost.processes for cost in costs),
            "clock_hours": clock(costs, self.jobs),
            "price": math.fsum(prices) if len(prices) == len(costs) else None,
        }

    def document(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "runs": [asdict(cost) for cost in self.costs],
            "total": self.total(),
            "left": self.total(self.left),
            "jobs": self.jobs,
            "measured": ["samples_per_second", "memory_gb"],
        }


def plan(ladder: Ladder, slots: Sequence[Slot]) -> Plan:
    """Measure each architecture for some seconds and add up. Raises UsageError for a model that cannot be built and
    MeasureError when its steps fail."""
    measured = measure(ladder.runs, ladder.out, slots[0])
    states = {run.name: state(run) for run in ladder.runs}
    left = {run.name for run in left_to_do(ladder.runs, states)}
    costs = [
        cost_of(run, states[run.name], found, ladder.price_per_hour, ladder.of_models)
        for run, found in zip(ladder.runs, measured, strict=True)
    ]
    jobs = max([len(slots), *(run.processes for run in ladder.runs)])
    return Plan(tuple(costs), tuple(cost for cost in costs if cost.run in left), jobs)


def cost_of(
    run: Run, state: str, measured: Throughput, price_per_hour: float | None, of_models: Sequence[str] = ()
) -> Cost:
    """The cost of one run; ``of_models`` are the keys to show."""
    size, samples = run.architecture.profile, run.config.samples - run.seen_before
    hours = samples / measured.samples_per_second / run.processes / 3600
    shown = run.config.model_dump(mode="json")
    return Cost(
        run=run.name,
        state=state,
        params=size.params,
        gmacs=size.gmacs,
        samples=run.config.samples,
        own_samples=samples,
        gmacs_total=size.gmacs * samples,
        processes=run.processes,
        samples_per_second=measured.samples_per_second,
        memory_gb=measured.memory_gb,
        hours=hours,
        price=None if price_per_hour is None else hours * run.processes * price_per_hour,
        after=run.after,
        settings={key: shown[key] for key in of_models if key in shown},
    )


def clock(costs: Sequence[Cost], jobs: int) -> float:
    """Hours until all is done when ``jobs`` processes work, and no run needs more of them."""
    waiting, now, free = Waiting(costs), 0.0, jobs
    order = itertools.count()
    running: list[tuple[float, int, Cost]] = []
    while waiting or running:
        while cost := waiting.take(free):
            free -= cost.processes
            heapq.heappush(running, (now + cost.hours, next(order), cost))
        now, _, cost = heapq.heappop(running)
        free += cost.processes
        waiting.done(cost)
    return now


def print_plan(found: Plan) -> None:
    """The plan as a table on stdout. Columns that say nothing of this ladder are left out."""
    rows = [_row(cost) for cost in found.costs]
    parts = [("all", found.costs), ("left to do", found.left)]
    for which, costs in parts[: 1 if len(found.left) == len(found.costs) else 2]:
        sums = found.total(costs)
        rows.append(
            {
                "run": counted(len(costs), "run"),
                "state": which,
                _OWN: f"{sums['samples']:,}",
                "GMACs": human(sums["gmacs_total"] or 0),
                "memory *": f"{sums['memory_gb']:.1f} GB",
                "hours": _hours(sums["hours"] or 0),
                "price": _price(sums["price"]),
            }
        )
    if not any(cost.after for cost in found.costs):  # all samples are a run's own
        rows = [{head.removeprefix("own "): text for head, text in row.items()} for row in rows]
    _, _, *figures = dict.fromkeys(itertools.chain(*rows))
    columns = (Column(head, "figure", _LEAVES.get(head, _OF_MODELS)) for head in figures)
    sheet = Sheet("", Column("run", "name"), Column("state"), *columns)
    for row in rows:
        sheet.add(*(row.get(column.head, "") for column in sheet.columns))
    sheet.print()
    clock_hours = found.total(found.left)["clock_hours"] or 0
    told = (
        f"* measured on this machine, one process alone. What is left takes {_hours(clock_hours)} by the clock with "
        f"{found.jobs} side by side, if they do not slow each other down."
    )
    show_lines([told])


_OWN = "own samples"
_LEAVES = {"hours": 0, "price": 1, _OWN: 2, "samples": 3, "GMACs": 4, "processes": 5, "samples/s *": 7, "memory *": 8}
_LEAVES |= {"params": 9, "GMACs/sample": 10}
"""The higher, the sooner a column is left out where there is no room."""
_OF_MODELS = 6
"""The same of settings."""


def _row(cost: Cost) -> dict[str, str]:
    """Column -> cell; a column that is empty in all rows says nothing of this ladder."""
    return {
        "run": cost.run,
        "state": cost.state,
        **{key: _word(value) for key, value in cost.settings.items()},
        "params": human(cost.params),
        "GMACs/sample": f"{cost.gmacs:.4g}",
        "samples": f"{cost.samples:,}",
        _OWN: f"{cost.own_samples:,}",
        "GMACs": human(cost.gmacs_total),
        "processes": f"{cost.processes}" if cost.processes > 1 else "",
        "samples/s *": f"{cost.samples_per_second:,.0f}",
        "memory *": f"{cost.memory_gb:.1f} GB",
        "hours": _hours(cost.hours),
        "price": _price(cost.price),
    }


def _hours(hours: float) -> str:
    return f"{hours:.1f} h" if hours >= 1 else f"{60 * hours:.1f} min" if hours >= 1 / 60 else f"{3600 * hours:.0f} s"


def _word(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return "" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def _price(value: float | None) -> str:
    return "" if value is None else f"{value:,.2f}" if value >= 1 else f"{value:.2g}"

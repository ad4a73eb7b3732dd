"""What a ladder costs: parameters, compute, memory, hours and money, per run and in total."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from clipeval.console import out, show
from clipeval.models import profile
from clipeval_train.ladder.grid import Ladder
from clipeval_train.ladder.jobs import FINISHED, state
from clipeval_train.ladder.processes import Slot
from clipeval_train.ladder.throughput import Throughput, measure


@dataclass(frozen=True)
class Cost:
    """One run. ``gmacs`` are of one image-text pair's forward pass, ``gmacs_total`` of all samples of the run.

    ``samples_per_second`` and ``memory_gb`` are measured; ``hours`` follow from them, of one process, and ``price``
    where the plan file gives one per hour. What evaluation, saving and start-up take is not in them.
    """

    run: str
    state: str
    params: float
    gmacs: float
    samples: int
    gmacs_total: float
    samples_per_second: float
    memory_gb: float
    hours: float
    price: float | None


@dataclass(frozen=True)
class Plan:
    """All runs, and how many processes train side by side."""

    costs: tuple[Cost, ...]
    jobs: int

    def total(self, costs: Sequence[Cost] | None = None) -> dict[str, float | None]:
        """Sums over ``costs`` (None: all), the most memory that ``jobs`` runs need at once, and the hours by the clock
        when each free process takes the most expensive run left."""
        costs = self.costs if costs is None else costs
        prices = [cost.price for cost in costs if cost.price is not None]
        memory = sorted((cost.memory_gb for cost in costs), reverse=True)[: self.jobs]
        return {
            "runs": len(costs),
            "samples": sum(cost.samples for cost in costs),
            "gmacs_total": math.fsum(cost.gmacs_total for cost in costs),
            "memory_gb": math.fsum(memory),
            "hours": math.fsum(cost.hours for cost in costs),
            "clock_hours": clock(((cost.gmacs_total, cost.hours) for cost in costs), self.jobs),
            "price": math.fsum(prices) if len(prices) == len(costs) else None,
        }

    @property
    def left(self) -> list[Cost]:
        """The runs that are not finished. One that has begun counts whole."""
        return [cost for cost in self.costs if cost.state != FINISHED]

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
    costs = []
    for run, found in zip(ladder.runs, measured, strict=True):
        size = run.architecture.profile
        cost = cost_of(run.name, state(run), size, run.config.samples, found, ladder.price_per_hour)
        costs.append(cost)
    return Plan(tuple(costs), len(slots))


def cost_of(
    name: str, state: str, size: profile.Profile, samples: int, measured: Throughput, price_per_hour: float | None
) -> Cost:
    """The cost of one run."""
    hours = samples / measured.samples_per_second / 3600
    return Cost(
        run=name,
        state=state,
        params=size.params,
        gmacs=size.gmacs,
        samples=samples,
        gmacs_total=size.gmacs * samples,
        samples_per_second=measured.samples_per_second,
        memory_gb=measured.memory_gb,
        hours=hours,
        price=None if price_per_hour is None else hours * price_per_hour,
    )


def clock(work: Iterable[tuple[float, float]], jobs: int) -> float:
    """Hours until all is done when ``jobs`` processes take (expense, hours), the most expensive first."""
    ends = [0.0] * jobs
    for _, hours in sorted(work, key=lambda item: -item[0]):
        heapq.heappush(ends, heapq.heappop(ends) + hours)
    return max(ends)


def print_plan(found: Plan) -> None:
    """The plan as a table on stdout."""
    from clipeval import tables

    priced = any(cost.price is not None for cost in found.costs)
    table = tables.table()
    columns = ("run", "state", "params", "GMACs/sample", "samples", "GMACs", "samples/s *", "memory *", "hours")
    for position, name in enumerate((*columns, *(["price"] if priced else []))):
        table.add_column(name, justify="left" if position < 2 else "right")
    for cost in found.costs:
        table.add_row(
            *(cost.run, cost.state, _short(cost.params), f"{cost.gmacs:.4g}", f"{cost.samples:,}"),
            *(_short(cost.gmacs_total), f"{cost.samples_per_second:,.0f}", f"{cost.memory_gb:.1f} GB"),
            *(_hours(cost.hours), *([_price(cost.price)] if priced else [])),
        )
    parts = [("all", list(found.costs)), ("left to do", found.left)]
    for title, costs in parts[: 1 if len(found.left) == len(found.costs) else 2]:
        sums = found.total(costs)
        table.add_section()
        table.add_row(
            *(f"{len(costs)} runs", title, "", "", f"{sums['samples']:,}", _short(sums["gmacs_total"] or 0), ""),
            *(f"{sums['memory_gb']:.1f} GB", _hours(sums["hours"] or 0), *([_price(sums["price"])] if priced else [])),
        )
    out().print(table)
    clock_hours = found.total(found.left)["clock_hours"] or 0
    show(
        f"* measured on this machine, one process alone. What is left takes {_hours(clock_hours)} by the clock with "
        f"{found.jobs} side by side, if they do not slow each other down."
    )


def _hours(hours: float) -> str:
    return f"{hours:.1f} h" if hours >= 1 else f"{60 * hours:.1f} min" if hours >= 1 / 60 else f"{3600 * hours:.0f} s"


def _short(value: float) -> str:
    for power, letter in ((12, "T"), (9, "G"), (6, "M"), (3, "k")):
        if value >= 10**power:
            return f"{value / 10**power:.4g}{letter}"
    return f"{value:.4g}"


def _price(value: float | None) -> str:
    return "" if value is None else f"{value:,.2f}" if value >= 1 else f"{value:.2g}"

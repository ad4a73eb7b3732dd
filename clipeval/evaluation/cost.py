"""What the cells of a plan cost, as far as it is known before anything is measured."""

from __future__ import annotations

from typing import Any

from clipeval.evaluation.cell import Cell
from clipeval.evaluation.plan import Plan
from clipeval.results.ledger import Ledger


def planned(plan: Plan, ledger: Ledger) -> list[dict[str, Any]]:
    """One record per cell: what it is, its state, and what it costs."""
    speeds = _speeds(ledger)
    return [_planned(cell, plan, speeds) for cell in plan.cells]


Circumstances = tuple[str | None, str | None, str | None]


def _speeds(ledger: Ledger) -> dict[Circumstances, float]:
    """Images per second that were reached, by architecture, device and precision."""
    found: dict[Circumstances, float] = {}
    for record in ledger.standing.values():
        for row in map(ledger.described, record.rows):
            if speed := row.get("images_per_second"):
                key = row.get("arch"), row.get("device"), row.get("precision")
                found[key] = max(speed, found.get(key, 0.0))
    return found


def _planned(cell: Cell, plan: Plan, speeds: dict[Circumstances, float]) -> dict[str, Any]:
    dataset, options = plan.datasets.get(cell.dataset), plan.request.options
    images = None if dataset is None else min(len(dataset), cell.limit or len(dataset))
    speed = speeds.get((cell.model.arch, options.device, options.precision))
    seconds = images / speed if cell.state == "to do" and images and speed else None
    return {
        "model": cell.model.name,
        "dataset": cell.dataset,
        "split": cell.entry.split,
        "task": cell.task.name,
        "shots": cell.shots,
        "seed": cell.seed,
        "state": cell.state,
        "images": images,
        "estimated_seconds": 0.0 if cell.state == "done" else seconds,
        "reason": cell.reason,
        "cell": cell.id,
    }

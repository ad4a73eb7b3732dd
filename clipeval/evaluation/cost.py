"""What the cells of a plan cost, as far as it is known before anything is measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from clipeval import models
from clipeval.evaluation.cell import Cell, training_splits
from clipeval.evaluation.plan import Plan
from clipeval.models import zoo
from clipeval.results.ledger import Ledger


def planned(plan: Plan, ledger: Ledger) -> list[dict[str, Any]]:
    """One record per cell: what it is, its state, and what it costs.

    Bytes are those of its checkpoint's weights that are to come (``weights_bytes``, 0 where they are here) and those
    that the run keeps of its images' pixels (``pixels_bytes``, see ``keeping``), which cells of one data set and
    preprocessing share. What is not known is None.
    """
    speeds = _speeds(ledger)
    weights = {cell.model.name: _weights_bytes(cell, plan) for cell in plan.cells}
    return [_planned(cell, plan, weights[cell.model.name], speeds) for cell in plan.cells]


def work(cells: Sequence[Cell], plan: Plan) -> dict[Cell, float]:
    """What each cell will encode, in images times the GMACs of its checkpoint's image tower: the first one that reads a
    split encodes it. Where GMACs are not known of all, in images."""
    gmacs = {cell.model.name: plan.info(cell.model).gmacs_image for cell in cells}
    if any(math.isnan(value) for value in gmacs.values()):
        gmacs = dict.fromkeys(gmacs, 1.0)
    seen: set[tuple[str, str, str]] = set()
    splits = plan.splits()
    found = dict.fromkeys(cells, 0.0)
    for cell in cells:
        for split in (cell.entry.split, *training_splits(cell)):
            key = cell.model.name, cell.dataset, split
            if key not in seen and (opened := splits.get(key[1:])) is not None:
                scored = min(len(opened), cell.limit or len(opened)) if split == cell.entry.split else len(opened)
                found[cell] += scored * gmacs[cell.model.name]
            seen.add(key)
    return found


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


def _weights_bytes(cell: Cell, plan: Plan) -> int | None:
    found = plan.checkpoints.get(cell.model.name)
    if found is not None and found.is_here:
        return 0
    size = zoo.weights_bytes(found.info if found else models.expected(cell.model))
    return None if math.isnan(size) else round(size)


def _planned(cell: Cell, plan: Plan, weights_bytes: int | None, speeds: dict[Circumstances, float]) -> dict[str, Any]:
    dataset, options = plan.dataset(cell.dataset), plan.request.options
    whole = cell.entry.n if dataset is None else len(dataset)
    images = None if whole is None else min(whole, cell.limit or whole)
    speed = speeds.get((cell.model.arch, options.device, options.precision))
    found = plan.checkpoints.get(cell.model.name)
    info = found.info if found else models.expected(cell.model)
    public = zoo.checkpoints().get((cell.model.arch, cell.model.pretrained))
    trained = info if found or public is None else public
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
        "to_download": cell.to_download,
        "weights_bytes": weights_bytes,
        "pixels_bytes": plan.pixels_bytes(cell),
        "reason": cell.reason,
        "cell": cell.id,
        "gmacs_image": info.gmacs_image,
        "arch": info.arch,
        "source": trained.source,
        "samples_seen": trained.samples_seen,
    }

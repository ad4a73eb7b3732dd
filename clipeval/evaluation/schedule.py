"""Which piece of work a free worker gets next, and what is lost when one dies. Knows nothing of how workers run."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from clipeval.evaluation.cell import Cell

MOST_CRASHES = 3
"""Workers that may die of one checkpoint before its cells are given up."""
SLICE_BATCHES = 16
"""Batches of images in a slice: large against the cost of a call, small against a data set."""


@dataclass(frozen=True)
class Unit:
    """A piece of work: all texts of a checkpoint, a slice of a data set's images, or a cell.

    ``cells`` are those it is for; ``start`` and ``stop`` name images among the samples that are scored.
    """

    kind: Literal["texts", "images", "cell"]
    cells: tuple[Cell, ...]
    start: int = 0
    stop: int = 0

    @property
    def model(self) -> str:
        """The checkpoint it needs."""
        return self.cells[0].model.name

    @property
    def label(self) -> str:
        """For messages."""
        where = {"texts": "texts", "images": f"{self.cells[0].dataset} images {self.start}-{self.stop}"}
        return f"{self.model} · {where[self.kind]}" if self.kind in where else self.cells[0].label


def slices(cells: Sequence[Cell], sizes: dict[str, int], batch_size: int) -> list[Unit]:
    """Slices of the scored images of each data set of ``cells``, one checkpoint's, where there is more than one.

    ``sizes`` gives the number of images. Slices start at multiples of the batch size, so that batches are made of the
    same images as in one process.
    """
    step, units = SLICE_BATCHES * batch_size, []
    for cell in {cell.dataset: cell for cell in reversed(cells)}.values():
        size = sizes[cell.dataset]
        if size > step:
            units += [Unit("images", (cell,), start, min(start + step, size)) for start in range(0, size, step)]
    return units


class Schedule:
    """Two stages per checkpoint: its texts and slices of images, then its cells."""

    def __init__(self, cells: Sequence[Cell], sizes: dict[str, int], batch_size: int) -> None:
        self._batch_size = batch_size
        self._waiting: dict[str, tuple[list[Unit], list[Unit]]] = {}
        self.add(cells, sizes)
        self._running: Counter[tuple[str, bool]] = Counter()
        """By checkpoint and whether it is a cell."""
        self._crashes: Counter[str] = Counter()

    def add(self, cells: Sequence[Cell], sizes: dict[str, int]) -> None:
        """Work that has come meanwhile; ``sizes`` gives the number of scored images by data set."""
        for model, group in itertools.groupby(cells, key=lambda cell: cell.model.name):
            mine = tuple(group)
            preparation, waiting = self._waiting.setdefault(model, ([], []))
            preparation += [Unit("texts", mine), *slices(mine, sizes, self._batch_size)]
            waiting += [Unit("cell", (cell,)) for cell in mine]

    @property
    def widest(self) -> int:
        """The most workers that could be busy at once, from now on."""
        waiting = sum(max(len(preparation), len(cells)) for preparation, cells in self._waiting.values())
        return waiting + self._running.total()

    @property
    def unfinished(self) -> bool:
        """Whether anything is waiting or running."""
        return any(preparation or cells for preparation, cells in self._waiting.values()) or self._running.total() > 0

    def next(
        self, held: str | None, held_by_others: Iterable[str | None], can: Callable[[Unit], bool] = lambda unit: True
    ) -> Unit | None:
        """Work that a worker ``can`` do that holds the checkpoint ``held``: of that one, else of one that no other
        worker holds, else of any. None when all that is left waits for running work, or is for others."""
        others = set(held_by_others)
        for model in sorted(self._waiting, key=lambda model: (model != held, model in others)):
            preparation, cells = self._waiting[model]
            ready = preparation or ([] if self._running[model, False] else cells)
            unit = next(filter(can, ready), None)
            if unit is not None:
                ready.remove(unit)
                self._running[model, unit.kind == "cell"] += 1
                return unit
        return None

    def hopeless(self, can: Callable[[Unit], bool]) -> list[Cell]:
        """Drop the waiting work that nobody ``can`` do; the cells that will not be measured. Without its slices a cell
        is tried all the same."""
        lost: list[Cell] = []
        for model, (preparation, cells) in list(self._waiting.items()):
            if any(unit.kind == "texts" and not can(unit) for unit in preparation):
                lost += self.give_up(model)
                continue
            preparation[:] = filter(can, preparation)
            lost += [cell for unit in cells if not can(unit) for cell in unit.cells]
            cells[:] = filter(can, cells)
        return lost

    def done(self, unit: Unit) -> None:
        """``unit`` has ended, well or with an error of its own."""
        self._running[unit.model, unit.kind == "cell"] -= 1

    def back(self, unit: Unit) -> None:
        """``unit`` was not done, through no fault of its own: it waits again, as the first of its checkpoint."""
        self.done(unit)
        self._waiting.setdefault(unit.model, ([], []))[unit.kind == "cell"].insert(0, unit)

    def give_up(self, model: str) -> list[Cell]:
        """Drop what waits of a checkpoint; the cells that will not be measured."""
        _, cells = self._waiting.pop(model, ([], []))
        return [unit.cells[0] for unit in cells]

    def crashed(self, unit: Unit) -> list[Cell]:
        """The worker died in ``unit``. It is tried again, or its checkpoint is given up: the cells lost."""
        self._crashes[unit.model] += 1
        if self._crashes[unit.model] < MOST_CRASHES:
            self.back(unit)
            return []
        self.done(unit)
        return [*(unit.cells if unit.kind == "cell" else ()), *self.give_up(unit.model)]

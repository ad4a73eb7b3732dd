"""Which pixels a run keeps on the disk: those that another of its checkpoints reads later, and those of small sets."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from clipeval import digest, models
from clipeval.datasets.base import Dataset
from clipeval.embeddings import room
from clipeval.evaluation.cell import Cell, training_splits
from clipeval.evaluation.shelf import Shelf
from clipeval.models import ModelSpec

if TYPE_CHECKING:
    from clipeval.models.opened import Opened

SMALL = 256_000_000
"""Bytes of a split's pixels that are kept whoever reads them again: the next run of a model in training, or of CI."""


@dataclass(frozen=True)
class _Read:
    """Pixels that a cell reads: ``key`` names their entry of the cache, ``bytes`` is what they take there (None: not
    known), ``fits`` whether the cache has room for an entry of that size at all."""

    split: str
    key: str
    bytes: int | None
    fits: bool = True


class Keeping:
    """What is kept of the pixels that ``cells``, those ahead of a run, read in their order.

    Of checkpoints and data that are not here it goes by what is expected of them.
    """

    def __init__(self, cells: Sequence[Cell], checkpoints: Mapping[str, Opened], shelf: Shelf) -> None:
        self._checkpoints, self._shelf = checkpoints, shelf
        self._records: dict[str, tuple[str, float]] = {}
        self._reads = {cell: [*self._reads_of(cell)] for cell in cells}
        self._splits: dict[tuple[str, str], set[str]] = defaultdict(set)
        self._entries: set[str] = set()
        later: dict[str, set[str]] = defaultdict(set)
        for cell in reversed(cells):
            reader, repeats = _reader(cell), bool(cell.task.address)  # fine-tuning embeds by weights that change
            for read in self._reads[cell]:
                again = repeats or later[read.key] - {reader}
                if read.fits and (again or read.bytes is None or read.bytes <= SMALL):
                    self._splits[cell.model.name, cell.dataset].add(read.split)
                    self._entries.add(read.key)
                later[read.key].add(reader)

    def splits(self, cell: Cell) -> tuple[str, ...]:
        """The splits whose pixels are kept when the checkpoint of a cell reads its data set."""
        return tuple(sorted(self._splits.get((cell.model.name, cell.dataset), ())))

    def bytes(self, cell: Cell) -> int | None:
        """What the pixels that a cell reads take in the cache, None where that is not known."""
        sizes = [read.bytes for read in self._reads.get(cell, ()) if read.key in self._entries]
        return None if None in sizes else sum(size for size in sizes if size is not None)

    def _reads_of(self, cell: Cell) -> Iterator[_Read]:
        settings, size = self._record(cell.model)
        for split in (cell.entry.split, *training_splits(cell)):
            found = self._shelf.open(cell.dataset, split)
            is_scored = split == cell.entry.split
            n = len(found) if isinstance(found, Dataset) else cell.entry.n if is_scored else None
            data = found.fingerprint if isinstance(found, Dataset) else f"{cell.dataset} {split}"
            key = digest.of_value([settings, data, n])
            if n is None or math.isnan(size):
                yield _Read(split, key, None)
            else:
                images = min(n, cell.limit or n) if is_scored else n
                yield _Read(split, key, round(images * size), n * size <= room.limit())

    def _record(self, model: ModelSpec) -> tuple[str, float]:
        """What decides the pixels of a checkpoint, and the bytes of one image's."""
        if model.name not in self._records:
            if found := self._checkpoints.get(model.name):
                known = digest.of_value(found.pixels.settings), float(math.prod(found.pixels.shape))
            else:
                side = models.expected(model).image_size
                known = f"a side of {side}", 3.0 * side * side
            self._records[model.name] = known
        return self._records[model.name]


def _reader(cell: Cell) -> str:
    """What tells image embeddings apart: a checkpoint under two names reads an image once."""
    known = cell.checkpoint
    return digest.of_value(known.image_key(cell.precision)) if known else cell.model.name

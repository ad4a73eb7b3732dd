"""A process that measures units of a plan for the one that keeps the ledger, on this machine or another."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from clipeval import machine, models
from clipeval.console import RunProgress
from clipeval.errors import ClipevalError
from clipeval.evaluation.cell import Cell
from clipeval.evaluation.crew import Answer, Machine
from clipeval.evaluation.failures import Elsewhere, InternalError, OutOfMemory, as_clipeval_errors
from clipeval.evaluation.request import Options
from clipeval.evaluation.schedule import Unit
from clipeval.evaluation.workbench import Workbench, require_same_checkpoint
from clipeval.models.opened import Opened
from clipeval.results import provenance


@dataclass(frozen=True)
class Piece:
    """Embeddings that one machine has made for all: of texts or of a slice of images, whichever ``unit`` is."""

    unit: Unit
    content: bytes | np.ndarray


class Worker:
    """Errors are returned, not raised, so that they arrive as they are."""

    _bench: Workbench

    def start(self, options: Options, folder: str) -> Machine | ClipevalError:
        """Get ready; relative paths start at ``folder``, where this machine has it."""
        with suppress(OSError):
            os.chdir(folder)
        self._options = options
        self._opened: dict[str, Opened] = {}
        try:
            with as_clipeval_errors():
                options = replace(options, device=machine.resolve_device(options.device))
                quiet = RunProgress(0, quiet=True)
                threads = options.decoders + 1
                self._bench = Workbench(options, quiet, checkpoints=self._opened, threads=threads)
        except ClipevalError as error:
            return error
        return Machine(socket.gethostname(), provenance.sources(), provenance.packages())

    def work(self, unit: Unit, given: Sequence[Piece] = (), keep: bool = False) -> tuple[Answer, Piece | None]:
        """Do a unit, for which other machines have ``given`` something: its answer, and what others can use of it where
        they do not share this machine's cache (``keep``)."""
        try:
            with as_clipeval_errors():
                self._require(unit)
                self.receive(given)
                return self._done(unit, keep)
        except ClipevalError as error:
            return error, None

    def receive(self, given: Sequence[Piece]) -> None:
        """Keep what other machines have made."""
        for piece in given:
            self._receive(piece)

    def close(self) -> None:
        """End its processes."""
        self._bench.close()

    def _done(self, unit: Unit, keep: bool) -> tuple[Answer, Piece | None]:
        content: Any = None
        if unit.kind == "texts":  # of all data sets: one that is wrong here fails in its own cells only
            self._bench.take(unit.cells)
            content = self._bench.known_texts() if keep else None
        elif unit.kind == "images":
            content = self._bench.embed(unit.cells[0], unit.start, unit.stop)
        else:
            return self._bench.measure(unit.cells[0]), None
        return None, Piece(unit, content) if keep else None

    def _receive(self, piece: Piece) -> None:
        """What cannot be kept is computed again."""
        cell = piece.unit.cells[0]
        with suppress(ClipevalError):
            if isinstance(piece.content, bytes):
                self._bench.receive_texts(cell, piece.content)
            else:
                self._bench.receive_images(cell, piece.unit.start, piece.content)

    def _require(self, unit: Unit) -> None:
        """Raises Elsewhere where this machine cannot open what the machine that planned the run could, or opens
        something else."""
        cell = unit.cells[0]
        with _only_here("checkpoint", cell.model.name):
            self._require_checkpoint(cell)
        if unit.kind != "texts":
            with _only_here("data set", cell.dataset):
                self._bench.require_same_data(cell)

    def _require_checkpoint(self, cell: Cell) -> None:
        name = cell.model.name
        if name not in self._opened:
            opened = models.open_checkpoint(cell.model, offline=self._options.offline)
            assert opened.identity
            require_same_checkpoint(cell, opened.identity)
            assert opened.paths is not None  # fetched now
            self._opened[name] = opened


@contextmanager
def _only_here(kind: str, name: str) -> Iterator[None]:
    """Errors of what the machine that planned the run could do are this machine's."""
    try:
        with as_clipeval_errors():
            yield
    except (InternalError, OutOfMemory):
        raise
    except ClipevalError as error:
        lacking = Elsewhere(f"does not have the {kind} {name} as it was planned: {error}")
        lacking.what = kind, name
        raise lacking from error

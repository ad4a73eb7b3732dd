"""One process's part of a run: a loaded checkpoint, opened data sets, and the cells measured with them."""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from clipeval import datasets, machine, models
from clipeval.console import RunProgress
from clipeval.datasets.base import Dataset
from clipeval.datasets.subset import Subset, evenly_spaced
from clipeval.embeddings import images, texts
from clipeval.embeddings.images import LoaderSettings
from clipeval.embeddings.inputs import EmbeddedInputs
from clipeval.errors import ClipevalError, DataError, MetricError, ModelError, StoreError
from clipeval.evaluation.plan import Cell, Options
from clipeval.tasks import load_task
from clipeval.tasks.base import TaskResult

if TYPE_CHECKING:
    from clipeval.models.base import Encoder

_LOADER_CRASHED = "DataLoader worker"


class InternalError(ClipevalError):
    """A bug met inside a cell: the cell becomes a failed row, the run goes on and ends in exit 70."""


class OutOfMemory(ModelError):
    """The device or the machine has no memory left: elsewhere, or later, the same work may succeed."""


@dataclass(frozen=True)
class Measured:
    """What measuring a cell gave, and the columns of the table that say where, when and how fast."""

    result: TaskResult
    timing: dict[str, Any]


def scored_samples(dataset: Dataset, limit: int | None) -> Dataset:
    """The samples that a run scores: all, or ``limit`` of them spread over the data set."""
    indices = evenly_spaced(dataset, limit)
    return dataset if len(indices) == len(dataset) else Subset(dataset, indices)


class Workbench:
    """Measures cells in this process. Holds one checkpoint at a time; errors leave it usable."""

    def __init__(
        self,
        options: Options,
        progress: RunProgress,
        opened: dict[str, Dataset] | None = None,
        threads: int | None = None,
    ) -> None:
        """``opened`` are data sets that are open already, by name; the others are opened when first needed.

        ``threads`` is the number of cores to use, None: all of the machine.
        """
        self._threads = threads or machine.cores()
        self._options = options
        self._progress = progress
        self._settings = LoaderSettings(options.batch_size, options.workers)
        self._whole = dict(opened or {})
        self._splits: dict[tuple[str, str], Dataset] = {}
        self._scored: dict[str, Dataset] = {}
        self._encoder: Encoder | None = None
        self._held = ""
        self._store: texts.TextStore | None = None
        self._inputs: tuple[str, EmbeddedInputs] | None = None

    def take(self, cells: Sequence[Cell]) -> None:
        """Load the checkpoint of ``cells`` and encode every text they need, so that batches are full whatever data
        sets they come from. Raises ModelError, StoreError or InternalError."""
        with _as_clipeval_errors():
            encoder = self._load(cells[0])
            store = self._texts_of(encoder)
            wanted: list[str] = []
            for cell in cells:
                with suppress(DataError, MetricError):  # the cell itself will meet the error again and report it
                    wanted += load_task(cell.task).texts(self.scored(cell))
            missing = store.missing(wanted)
            if missing:
                self._progress.start(f"{cells[0].model.name} · texts", len(missing))
                texts.embed(encoder, store, missing, self._options.batch_size, self._progress.advance)
            self._store, self._inputs = store, None

    def scored(self, cell: Cell) -> Dataset:
        """The samples of the cell's data set that are scored. Raises DataError."""
        if cell.dataset not in self._scored:
            if cell.dataset not in self._whole:
                self._whole[cell.dataset] = datasets.open_dataset(
                    cell.dataset, cell.entry, offline=self._options.offline
                )
            self._scored[cell.dataset] = scored_samples(self._whole[cell.dataset], cell.limit)
        return self._scored[cell.dataset]

    def embed(self, cell: Cell, start: int, stop: int) -> None:
        """Fill the store with the embeddings of the scored images ``start`` to ``stop``. Raises ClipevalError."""
        with _as_clipeval_errors():
            dataset, indices = self.scored(cell), np.arange(start, stop)
            if isinstance(dataset, Subset):
                indices, dataset = dataset.indices[indices], dataset.whole
            images.embed(self._load(cell), dataset, indices, self._settings, lambda done, stored: None)

    def measure(self, cell: Cell) -> Measured:
        """The cell's metrics and outcomes. Its texts must be in the store (``take``). Raises ClipevalError."""
        started, clock = datetime.now(UTC), time.monotonic()
        with _as_clipeval_errors():
            encoder = self._load(cell)
            inputs = self._inputs_of(cell)
            self._progress.start(cell.label, len(inputs.dataset))
            result = load_task(cell.task).run(inputs.with_parameters(cell.shots, cell.seed, cell.protocol))
        timing = {
            "device": encoder.device,
            "started_at": started.isoformat(timespec="seconds"),
            "seconds": time.monotonic() - clock,
            "images_per_second": self._progress.rate or None,
        }
        return Measured(result, timing)

    def _load(self, cell: Cell) -> Encoder:
        if self._encoder is None or self._held != cell.model.name:
            self._encoder, self._held, self._store, self._inputs = None, "", None, None  # free it before the next
            settings = self._options
            self._encoder = models.load(
                cell.model, device=settings.device, precision=settings.precision, offline=settings.offline
            )
            self._held = cell.model.name
            if self._encoder.device == "cpu":
                machine.set_threads(self._encoder.info.gmacs_image, self._threads)
        return self._encoder

    def _texts_of(self, encoder: Encoder) -> texts.TextStore:
        return texts.TextStore(encoder.identity.text_key(encoder.precision), encoder.embed_dim, self._settings.fresh)

    def _inputs_of(self, cell: Cell) -> EmbeddedInputs:
        """The inputs of one data set, kept while cells of that data set follow each other."""
        if self._inputs is None or self._inputs[0] != cell.dataset:
            encoder = self._load(cell)
            store = self._store or self._texts_of(encoder)
            names = {"train": cell.entry.train_split, "val": cell.entry.val_split}

            def open_split(kind: str) -> Dataset | None:
                split = names[kind]
                return None if split is None else self._open(cell, split)

            inputs = EmbeddedInputs(
                encoder, self.scored(cell), store, open_split, self._settings, self._progress.advance
            )
            self._inputs = cell.dataset, inputs
        return self._inputs[1]

    def _open(self, cell: Cell, split: str) -> Dataset:
        key = cell.dataset, split
        if key not in self._splits:
            offline = self._options.offline
            self._splits[key] = datasets.open_dataset(cell.dataset, cell.entry, split, offline=offline)
        return self._splits[key]


@contextmanager
def _as_clipeval_errors() -> Iterator[None]:
    """Turn what libraries raise for a full device or a lost decoder into errors for people; keep bugs visible."""
    try:
        yield
    except (ClipevalError, KeyboardInterrupt):
        raise
    except Exception as error:
        text = str(error)
        if isinstance(error, MemoryError) or "out of memory" in text.lower():
            first = (text or "MemoryError").splitlines()[0]
            raise OutOfMemory(f"the device ran out of memory: {first} Use a smaller --batch-size.") from error
        if text.startswith(_LOADER_CRASHED):
            raise StoreError(f"an image decoding process died: {text.splitlines()[0]} Use fewer --workers.") from error
        raise InternalError(
            f"{type(error).__name__}: {text}\n{''.join(traceback.format_exception(error)[-4:])}"
        ) from error

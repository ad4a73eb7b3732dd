"""One process's part of a run: a loaded checkpoint, opened data sets, and the cells measured with them."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from clipeval import datasets, machine, models
from clipeval.console import RunProgress
from clipeval.datasets.base import Dataset
from clipeval.datasets.subset import Subset, evenly_spaced
from clipeval.embeddings import batches, images, texts
from clipeval.embeddings.decoders import Decoders
from clipeval.embeddings.images import LoaderSettings
from clipeval.embeddings.inputs import EmbeddedInputs
from clipeval.errors import ClipevalError, DataError, ModelError
from clipeval.evaluation.ahead import Ahead
from clipeval.evaluation.cell import Cell, training_splits
from clipeval.evaluation.failures import InternalError, as_clipeval_errors
from clipeval.evaluation.interrupt import look
from clipeval.evaluation.request import Options
from clipeval.evaluation.shelf import dataset_identity
from clipeval.identity import CheckpointIdentity
from clipeval.tasks import load_task
from clipeval.tasks.asked import with_asked
from clipeval.tasks.base import TaskResult

if TYPE_CHECKING:
    from clipeval.models.base import Encoder
    from clipeval.models.opened import Opened


@dataclass(frozen=True)
class Measured:
    """What measuring a cell gave, the columns of the table that say where, when and how fast, and sentences on what was
    seen of this checkpoint on this data set."""

    result: TaskResult
    timing: dict[str, Any]
    remarks: tuple[str, ...] = ()


@dataclass
class Ready:
    """A data set whose images are embedded, to be scored elsewhere. ``seconds`` is how long that took: of the first
    cell that is scored."""

    inputs: EmbeddedInputs
    started: datetime
    seconds: float
    rate: float | None


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
        opened: Callable[[], Mapping[tuple[str, str], Dataset]] | None = None,
        checkpoints: Mapping[str, Opened] | None = None,
        threads: int | None = None,
    ) -> None:
        """``opened`` gives the splits that are open already, by data set and name, ``checkpoints`` are those by name;
        others are opened when first needed. ``checkpoints`` may grow.

        ``threads`` is the number of cores to use, None: all of the machine.
        """
        self._threads = threads or machine.cores()
        self._options = options
        self._progress = progress
        self._opened = opened or (lambda: {})
        self._splits: dict[tuple[str, str], Dataset] = {}
        self._decoders = Decoders(options.decoders, self._opened().values())
        self._settings = LoaderSettings(options.batch_size, options.decoders, options.fresh, decoders=self._decoders)
        self._checkpoints = checkpoints if checkpoints is not None else {}
        self._scored: dict[str, Dataset] = {}
        self._encoder: Encoder | None = None
        self._held = ""
        self._now = threading.local()
        """``label`` is the cell that this thread is at."""
        self._turn = threading.RLock()
        self._store: texts.TextStore | None = None
        self._inputs: tuple[str, EmbeddedInputs] | None = None
        self._textless: dict[Cell, ClipevalError] = {}
        self._ahead: dict[str, Ahead] = {}

    def close(self) -> None:
        """End the processes that decode images."""
        self._decoders.close()

    def take(self, cells: Sequence[Cell]) -> None:
        """Load the checkpoint of ``cells`` and encode every text they need, so that batches are full whatever data
        sets they come from. A cell whose texts cannot be encoded meets the error in ``measure``. Raises ClipevalError.
        """
        with as_clipeval_errors():
            encoder = self._load(cells[0])
            self._store, self._inputs = self._texts_of(encoder), None
            self._textless = {}
            wanted = {cell: self._texts(cell) for cell in cells}
        try:
            self._encode(cells[0].model.name, [text for found in wanted.values() for text in found])
        except InternalError:  # a text that the tokenizer cannot take
            for cell, found in wanted.items():
                try:
                    self._encode(cell.label, found)
                except InternalError as error:
                    self._textless[cell] = error

    def _texts(self, cell: Cell) -> list[str]:
        with suppress(Exception):  # the cell itself will meet the error again and report it
            return load_task(cell.task).texts(self.scored(cell))
        return []

    def _encode(self, label: str, wanted: list[str]) -> None:
        assert self._encoder is not None
        assert self._store is not None
        with as_clipeval_errors():
            if missing := self._store.missing(wanted):
                self._progress.start(f"{label} · texts", len(missing))
                texts.embed(self._encoder, self._store, missing, self._settings.batch_size, self._advance)

    def fetch_ahead(self, cell: Cell) -> None:
        """Begin to fetch the weights of a cell's checkpoint."""
        if (opened := self._checkpoints.get(cell.model.name)) and opened.snapshot:
            self._ahead[cell.model.name] = Ahead(lambda: opened.paths)

    def wait_for_weights(self, cell: Cell) -> None:
        """Until the weights that were fetched ahead are here. Raises ModelError where they are not to be had."""
        if ahead := self._ahead.pop(cell.model.name, None):
            ahead.wait()

    def put_away(self, cell: Cell, later: Sequence[Cell]) -> None:
        """The cells of a checkpoint are done. Where so asked, remove its weights if this run has fetched them, unless
        a ``later`` cell's checkpoint is the same file."""
        opened = self._checkpoints.get(cell.model.name)
        others = [self._checkpoints.get(other.model.name) for other in later]
        if self._options.keep_weights or opened is None or opened.file in {c.file for c in others if c}:
            return
        self._decoders.close()
        self._encoder, self._held, self._store, self._inputs = None, "", None, None  # it maps the file
        opened.remove_fetched()

    def scored(self, cell: Cell) -> Dataset:
        """The samples of the cell's data set that are scored. Raises DataError."""
        if cell.dataset not in self._scored:
            self._scored[cell.dataset] = scored_samples(self._open(cell, cell.entry.split), cell.limit)
        return self._scored[cell.dataset]

    def require_same_data(self, cell: Cell) -> None:
        """Raises DataError where the data set is not the one that the cell was planned for."""
        with as_clipeval_errors():
            found = dataset_identity(self.scored(cell), [self._open(cell, split) for split in training_splits(cell)])
        if cell.data != found:
            expected = cell.data.fingerprint if cell.data else ""
            raise DataError(
                f"{cell.dataset}: {socket.gethostname()} sees other samples than the machine that planned the run "
                f"({found.fingerprint[:12]}, not {expected[:12]}): they have changed during the run, or the machines "
                "have not the same files. Run the same command again."
            )

    def embed(self, cell: Cell, start: int, stop: int) -> np.ndarray:
        """Fill the store with the embeddings ``[stop - start, D]`` of the scored images from ``start`` on. Raises
        ClipevalError."""
        with as_clipeval_errors():
            dataset, indices = self._places(cell, start, stop)
            encoder = self._load(cell)
            settings = replace(self._settings, keeps=cell.keeps)
            return images.embed(encoder, dataset, indices, settings, lambda done, stored: None)

    def receive_images(self, cell: Cell, start: int, embeddings: np.ndarray) -> None:
        """Fill the store with what ``embed`` gave on another machine. Raises ClipevalError."""
        with as_clipeval_errors():
            dataset, indices = self._places(cell, start, start + len(embeddings))
            store = images.embedding_file(self._load(cell), dataset, self._settings.fresh)
            store.write(indices, embeddings)
            store.flush()

    def _places(self, cell: Cell, start: int, stop: int) -> tuple[Dataset, np.ndarray]:
        dataset, indices = self.scored(cell), np.arange(start, stop)
        return (dataset.whole, dataset.indices[indices]) if isinstance(dataset, Subset) else (dataset, indices)

    def known_texts(self) -> bytes:
        """The embeddings of texts under the checkpoint at hand, for ``receive_texts`` on another machine."""
        return self._store.bodies() if self._store else b""

    def receive_texts(self, cell: Cell, bodies: bytes) -> None:
        """Keep embeddings of texts that another machine has made. Raises ClipevalError."""
        with as_clipeval_errors():
            encoder = self._load(cell)
            self._store = self._store or self._texts_of(encoder)
            self._store.receive(bodies)

    @property
    def is_free_to_score(self) -> bool:
        """Whether the cores of this process are not what encodes images, so that they may score meanwhile. In tf32 they
        may not: that is a setting of the process, in which a probe on the GPU would compute too."""
        on_gpu = self._encoder is not None and self._encoder.device != "cpu"
        return on_gpu and self._options.precision != "tf32"

    def ready(self, cells: Sequence[Cell]) -> Ready | None:
        """Embed the images that ``cells`` of one data set will ask for; None where that fails, as they will find."""
        started, clock = datetime.now(UTC), time.monotonic()
        self._now.label = cells[0].label
        with suppress(ClipevalError), as_clipeval_errors():
            inputs = self._inputs_of(cells[0])
            inputs.images()
            trained = inputs.split("train") if any(_trains_on_all(cell) for cell in cells) else None
            if trained is not None:
                trained.images()
            return Ready(inputs, started, time.monotonic() - clock, self._progress.rate or None)
        return None

    def measure(self, cell: Cell, ready: Ready | None = None) -> Measured:
        """The cell's metrics and outcomes. Its texts must be in the store (``take``). Where its images are ``ready``, a
        thread may do it while another one embeds those of another data set. Raises ClipevalError."""
        started, clock = datetime.now(UTC), time.monotonic()
        if ready and ready.seconds:
            started, clock, ready.seconds = ready.started, clock - ready.seconds, 0.0
        self._now.label = cell.label
        if error := self._textless.get(cell):
            raise error
        self.require_same_data(cell)
        with as_clipeval_errors():
            encoder = self._load(cell)
            inputs = ready.inputs if ready else self._inputs_of(cell)
            result = load_task(cell.task).run(inputs.with_parameters(cell.shots, cell.seed, cell.protocol))
            if cell.measure.metric:
                result = with_asked(result, cell.entry.main_metric or "", inputs)
            remarks = [*encoder.remarks, *self._cut_texts(cell, encoder, inputs.asked), *inputs.remarks]
        timing = {
            "device": encoder.device,
            "started_at": started.isoformat(timespec="seconds"),
            "seconds": time.monotonic() - clock,
            "images_per_second": ready.rate if ready else self._progress.rate or None,
        }
        return Measured(result, timing, tuple(remarks))

    def _cut_texts(self, cell: Cell, encoder: Encoder, asked: list[str]) -> Iterator[str]:
        """How many of the texts of a cell do not fit into the context of the checkpoint. A task of another package has
        ``asked`` for its own."""
        found = asked if cell.task.extension else load_task(cell.task).texts(self.scored(cell))
        if cut := int(encoder.are_cut(found).sum()):
            what = "captions" if {"captions", "choices"} & set(cell.task.needs) else "prompts"
            yield f"{cut:,} of {len(found):,} {what} were cut at {encoder.context_length} tokens, the context length"

    def _start(self, split: str, images: int) -> None:
        self._progress.start(f"{self._now.label} · {split}", images)
        self._progress.then("scoring")

    def _say(self, sentence: str) -> None:
        self._progress.line(f"{self._now.label}: {sentence}")

    def _work(self, text: str, done: int = 0, total: int | None = None) -> None:
        look()
        self._progress.work(self._now.label, text, done, total)

    def _advance(self, items: int, stored: int) -> None:
        look()
        self._progress.advance(items, stored)

    def _load(self, cell: Cell) -> Encoder:
        if self._encoder is None or self._held != cell.model.name:
            if self._encoder is not None and self._encoder.device == "cpu":
                self._decoders.close()  # they would hold the weights that they were forked with
            self._encoder, self._held, self._store, self._inputs = None, "", None, None  # free it before the next
            settings = self._options
            opened = self._checkpoints.get(cell.model.name, cell.model)
            self._progress.wait(f"loading {self._progress.names[cell.model.name]}")
            encoder = models.load(
                opened, device=settings.device, precision=settings.precision, offline=settings.offline
            )
            require_same_checkpoint(cell, encoder.identity)
            self._encoder, self._held = encoder, cell.model.name
            if encoder.device == "cpu":
                machine.set_threads(encoder.info.gmacs_image, self._threads)
            if settings.batch_auto:
                self._settings = replace(self._settings, batch_size=batches.images_at_once(encoder))
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

            settings = replace(self._settings, keeps=cell.keeps)
            shared = settings, self._advance, self._start, self._say, self._turn, self._work
            inputs = EmbeddedInputs(encoder, self.scored(cell), store, open_split, *shared)
            self._inputs = cell.dataset, inputs
        return self._inputs[1]

    def _open(self, cell: Cell, split: str) -> Dataset:
        key = cell.dataset, split
        if key not in self._splits and (found := self._opened().get(key)):
            self._splits[key] = found
        if key not in self._splits:
            offline = self._options.offline
            self._splits[key] = datasets.open_dataset(cell.dataset, cell.entry, split, offline=offline)
        return self._splits[key]


def _trains_on_all(cell: Cell) -> bool:
    return "train" in cell.task.needs and cell.shots is None


def require_same_checkpoint(cell: Cell, found: CheckpointIdentity) -> None:
    """Raises ModelError where a checkpoint is not the one that the cell was planned for."""
    if cell.checkpoint != found:
        planned = cell.checkpoint.weights if cell.checkpoint else ""
        different = f": weights {found.weights[:12]}, not {planned[:12]}" if found.weights != planned else ""
        raise ModelError(
            f"{cell.model.name}: the checkpoint has changed during the run{different}. Run the same command again."
        )

"""Executes a plan in this process: each checkpoint is loaded once, each image and each unique text encoded once."""

from __future__ import annotations

import itertools
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from clipeval import datasets, machine, models
from clipeval.console import RunProgress
from clipeval.datasets.base import Dataset
from clipeval.datasets.subset import Subset, evenly_spaced
from clipeval.embeddings import texts
from clipeval.embeddings.images import LoaderSettings
from clipeval.embeddings.inputs import EmbeddedInputs
from clipeval.errors import ClipevalError, DataError, MetricError, ModelError, StoreError
from clipeval.plan import Cell, Options, Plan
from clipeval.results import samples
from clipeval.results.ledger import Ledger
from clipeval.results.rows import failed_row, metric_rows
from clipeval.tasks import load_task
from clipeval.tasks.base import TaskResult

if TYPE_CHECKING:
    from clipeval.models.base import Encoder

_LOADER_CRASHED = "DataLoader worker"


class InternalError(ClipevalError):
    """A bug met inside a cell: the cell becomes a failed row, the run goes on and ends in exit 70."""


class LocalExecutor:
    """Runs the cells of ``plan`` that are to do and appends each to ``ledger`` when it is finished.

    ``failures`` collects one message per cell that could not be measured.
    """

    def __init__(self, plan: Plan, ledger: Ledger, options: Options, progress: RunProgress) -> None:
        self._plan = plan
        self._ledger = ledger
        self._options = options
        self._progress = progress
        self._settings = LoaderSettings(options.batch_size, options.workers)
        self._subsets: dict[str, Dataset] = {}
        self._other_splits: dict[tuple[str, str], Dataset] = {}
        self.failures: list[tuple[Cell, ClipevalError]] = []

    def execute(self) -> None:
        """Measure everything. Errors of a cell become its row; only KeyboardInterrupt and a full disk stop the run."""
        for suite in self._plan.suites:
            self._ledger.add_suite(suite.to_json())
        for _, group in itertools.groupby(self._plan.to_do(), key=lambda cell: cell.model.name):
            self._execute_model(list(group))

    def _execute_model(self, cells: list[Cell]) -> None:
        ready = [cell for cell in cells if cell.state == "to do"]
        for cell in cells:
            if cell.state == "skipped":
                self._skip(cell)
            elif cell.state != "to do":
                self._fail(cell, ModelError(cell.reason))
        if not ready:
            return
        try:
            with _as_clipeval_errors():
                encoder = models.load(
                    ready[0].model,
                    device=self._options.device,
                    precision=self._options.precision,
                    offline=self._options.offline,
                )
                if encoder.device == "cpu":
                    machine.set_threads(encoder.info.gmacs_image)
                store = self._embed_texts(encoder, ready)
        except (StoreError, ModelError, InternalError) as error:
            for cell in ready:
                self._fail(cell, error)
            return
        for _, group in itertools.groupby(ready, key=lambda cell: cell.dataset):
            same_data = list(group)
            inputs = self._inputs(encoder, store, same_data[0])
            for cell in same_data:
                self._execute_cell(cell, inputs)

    def _embed_texts(self, encoder: Encoder, cells: list[Cell]) -> texts.TextStore:
        """Encode the texts of all cells in one go, so that batches are full whatever data sets they come from."""
        store = texts.TextStore(encoder.key(), encoder.embed_dim)
        wanted: list[str] = []
        for cell in cells:
            with suppress(DataError, MetricError):  # the cell itself will meet the error again and report it
                wanted += load_task(cell.task).texts(self._scored(cell))
        missing = store.missing(wanted)
        if missing:
            self._progress.start(f"{cells[0].model.name} · texts", len(missing))
            texts.embed(encoder, store, missing, self._options.batch_size, self._progress.advance)
        return store

    def _scored(self, cell: Cell) -> Dataset:
        if cell.dataset not in self._subsets:
            whole = self._plan.datasets[cell.dataset]
            indices = evenly_spaced(whole, cell.limit)
            self._subsets[cell.dataset] = whole if len(indices) == len(whole) else Subset(whole, indices)
        return self._subsets[cell.dataset]

    def _inputs(self, encoder: Encoder, store: texts.TextStore, cell: Cell) -> EmbeddedInputs:
        names = {"train": cell.entry.train_split, "val": cell.entry.val_split}

        def open_split(kind: str) -> Dataset | None:
            split = names[kind]
            if split is None:
                return None
            key = cell.dataset, split
            if key not in self._other_splits:
                offline = self._options.offline
                self._other_splits[key] = datasets.open_dataset(cell.dataset, cell.entry, split, offline=offline)
            return self._other_splits[key]

        return EmbeddedInputs(encoder, self._scored(cell), store, open_split, self._settings, self._progress.advance)

    def _execute_cell(self, cell: Cell, inputs: EmbeddedInputs) -> None:
        started = datetime.now(UTC)
        clock = time.monotonic()
        self._progress.start(cell.label, len(inputs.dataset))
        try:
            with _as_clipeval_errors():
                result = load_task(cell.task).run(inputs.with_parameters(cell.shots, cell.seed, cell.protocol))
                samples.write(self._options.out, cell.id, result.samples)
        except ClipevalError as error:
            self._fail(cell, error)
            return
        timing = {
            "started_at": started.isoformat(timespec="seconds"),
            "seconds": time.monotonic() - clock,
            "images_per_second": self._progress.rate or None,
        }
        self._finish(cell, result, timing)

    def _finish(self, cell: Cell, result: TaskResult, timing: dict[str, Any]) -> None:
        dataset = self._scored(cell)
        rows = metric_rows(cell, self._plan.infos[cell.model.name], dataset, result, self._options, timing)
        self._ledger.add_cell(cell.id, rows)
        for row in rows:
            if row["status"] == "failed":
                self.failures.append((cell, ModelError(str(row["error"]))))
        shown = ", ".join(f"{m.name} {m.value:.4f}" for m in result.metrics if m.status == "ok")
        self._progress.finish_cell(f"{cell.label}: {shown} ({timing['seconds']:.1f} s)")

    def _skip(self, cell: Cell) -> None:
        row = failed_row(cell, self._plan, self._options, cell.reason, status="skipped")
        self._ledger.add_cell(cell.id, [row])
        self._progress.finish_cell(f"{cell.label}: skipped: {cell.reason}")

    def _fail(self, cell: Cell, error: ClipevalError) -> None:
        self.failures.append((cell, error))
        self._progress.finish_cell(f"{cell.label}: FAILED: {error}")
        self._ledger.add_cell(cell.id, [failed_row(cell, self._plan, self._options, str(error), status="failed")])


@contextmanager
def _as_clipeval_errors() -> Iterator[None]:
    """Turn what libraries raise for a full device or a lost decoder into errors for people; keep bugs visible."""
    try:
        yield
    except (ClipevalError, KeyboardInterrupt):
        raise
    except Exception as error:
        text = str(error)
        if "out of memory" in text.lower():
            raise ModelError(
                f"the device ran out of memory: {text.splitlines()[0]} Use a smaller --batch-size."
            ) from error
        if text.startswith(_LOADER_CRASHED):
            raise StoreError(f"an image decoding process died: {text.splitlines()[0]} Use fewer --workers.") from error
        raise InternalError(
            f"{type(error).__name__}: {text}\n{''.join(traceback.format_exception(error)[-4:])}"
        ) from error

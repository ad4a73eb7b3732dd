"""What becomes of each cell: rows in the ledger, a line of progress, a message where it could not be measured."""

from __future__ import annotations

from clipeval.console import RunProgress
from clipeval.datasets.base import Dataset
from clipeval.errors import ClipevalError, ModelError, StoreError
from clipeval.evaluation.plan import Cell, Options, Plan
from clipeval.evaluation.rows import failed_row, metric_rows
from clipeval.evaluation.workbench import Measured
from clipeval.results import samples
from clipeval.results.ledger import Ledger


class Journal:
    """The one writer of a run's results. ``failures`` holds an error per cell that could not be measured."""

    def __init__(self, plan: Plan, ledger: Ledger, options: Options, progress: RunProgress) -> None:
        self.failures: list[tuple[Cell, ClipevalError]] = []
        self._plan, self._ledger, self._options, self._progress = plan, ledger, options, progress

    def open(self) -> list[Cell]:
        """Record the suites and every cell that cannot or need not be tried; the cells to measure, in order."""
        for suite in self._plan.suites:
            self._ledger.add_suite(suite.to_json())
        ready = []
        for cell in self._plan.to_do():
            if cell.state == "to do":
                ready.append(cell)
            elif cell.state == "skipped":
                self._skip(cell)
            else:
                self.fail(cell, ModelError(cell.reason))
        return ready

    def finish(self, cell: Cell, dataset: Dataset, measured: Measured) -> None:
        """A cell is measured on ``dataset``, the samples that were scored. Raises StoreError for a full disk."""
        try:
            samples.write(self._options.out, cell.id, measured.result.samples)
        except StoreError as error:
            self.fail(cell, error)
            return
        info = self._plan.infos[cell.model.name]
        rows = metric_rows(cell, info, dataset, measured.result, self._options, measured.timing)
        self._ledger.add_cell(cell.id, rows)
        for row in rows:
            if row["status"] == "failed":
                self.failures.append((cell, ModelError(str(row["error"]))))
        shown = ", ".join(f"{m.name} {m.value:.4f}" for m in measured.result.metrics if m.status == "ok")
        self._progress.finish_cell(f"{cell.label}: {shown} ({measured.timing['seconds']:.1f} s)")

    def fail(self, cell: Cell, error: ClipevalError) -> None:
        """A cell could not be measured. Raises StoreError."""
        self.failures.append((cell, error))
        self._progress.finish_cell(f"{cell.label}: FAILED: {error}")
        self._ledger.add_cell(cell.id, [failed_row(cell, self._plan, self._options, str(error), status="failed")])

    def _skip(self, cell: Cell) -> None:
        row = failed_row(cell, self._plan, self._options, cell.reason, status="skipped")
        self._ledger.add_cell(cell.id, [row])
        self._progress.finish_cell(f"{cell.label}: skipped: {cell.reason}")

"""What becomes of each cell: rows in the ledger, a line of progress, a message where it could not be measured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict

from clipeval import vocabulary
from clipeval.console import RunProgress
from clipeval.datasets.base import Dataset
from clipeval.errors import ClipevalError, ModelError
from clipeval.evaluation import cost
from clipeval.evaluation.cell import Cell
from clipeval.evaluation.failures import as_clipeval_errors
from clipeval.evaluation.plan import Plan, to_do
from clipeval.evaluation.reasons import MOST_APART, whose
from clipeval.evaluation.rows import failed_row, metric_rows
from clipeval.evaluation.workbench import Measured
from clipeval.names import SEPARATOR, display_names
from clipeval.results import samples
from clipeval.results.interim import Interim
from clipeval.results.ledger import Ledger
from clipeval.results.schema import Status


class Journal:
    """The one writer of a run's results. ``failures`` holds an error per cell that could not be measured."""

    def __init__(self, plan: Plan, ledger: Ledger, progress: RunProgress) -> None:
        self.failures: list[tuple[Cell, ClipevalError]] = []
        self._plan, self._ledger, self._progress = plan, ledger, progress
        self._said: set[str] = set()
        self._interim = Interim(plan.request.options.out, ledger)
        self._left: Counter[str] = Counter()
        self._work: dict[Cell, float] = {}
        self._names = display_names(map(asdict, plan.infos()))

    def open(self, cells: Sequence[Cell], instead_of: int = 0) -> list[Cell]:
        """Record the suites, what is known of the checkpoints, and those of ``cells`` that cannot or need not be tried;
        those to measure, in order. They come ``instead_of`` so many that were expected. Raises StoreError."""
        ready = [cell for cell in cells if cell.state == "to do"]
        work = cost.work(ready, self._plan)
        self._work |= work
        self._progress.expect(len(to_do(cells)), instead_of, sum(work.values()))
        for suite in self._plan.suites:
            self._ledger.add_suite(suite.to_json())
        for info in self._plan.infos():
            self._ledger.add_checkpoint(asdict(info))
        self._fail_before([cell for cell in to_do(cells) if cell.state not in ("to do", "skipped")])
        for cell in to_do(cells):
            if cell.state == "skipped":
                self._add_row(cell, cell.reason, "skipped")
                self._progress.finish_cell(f"{self._label(cell)}: skipped: {cell.reason}")
        self._left.update(cell.model.name for cell in ready)
        return ready

    def finish(self, cell: Cell, dataset: Dataset, measured: Measured) -> None:
        """A cell is measured on ``dataset``, the samples that were scored. Raises StoreError for a full disk."""
        result = measured.result
        try:
            with as_clipeval_errors():
                self._ledger.add_checkpoint(asdict(self._plan.info(cell.model)))  # its file may have said more by now
                samples.write(self._plan.request.options.out, cell.id, result.samples)
                remarks = [*self._plan.remarks(cell), *measured.remarks]
                rows = metric_rows(cell, self._plan.info(cell.model), dataset, result, measured.timing, remarks)
                reached = [metric for metric in result.metrics if metric.status == "ok"]
                self._ledger.add_cell(cell.id, rows)
        except ClipevalError as error:
            self.fail(cell, error)
            return
        for sentence in measured.remarks:
            self._say_once(f"{cell.dataset}: {sentence}")
        for row in rows:
            if row["status"] == "failed":
                self.failures.append((cell, ModelError(str(row["error"]))))
        # labels of several classes per image give another metric than the main one of the task
        main = sorted(reached, key=lambda metric: metric.name != cell.main_metric)[:1]
        shown = "".join(f"{vocabulary.value(metric.name, metric.value)} " for metric in main)
        line = f"{self._label(cell)}: {shown}({measured.timing['seconds']:.1f} s)"
        self._progress.finish_cell(line, self._work.pop(cell, 0.0))
        self._ended(cell)

    def fail(self, cell: Cell, error: ClipevalError) -> None:
        """A cell could not be measured. Raises StoreError."""
        self._add_failure(cell, error)
        # why is said once, at the end
        self._progress.finish_cell(f"{self._label(cell)}: FAILED", self._work.pop(cell, 0.0), measured=False)
        self._ended(cell)

    def _fail_before(self, cells: Sequence[Cell]) -> None:
        """Cells that cannot be tried; many of them in one line."""
        for cell in cells:
            self._add_failure(cell, cell.bug or ModelError(cell.reason))
        if len(cells) > MOST_APART:
            who = whose((self._names[cell.model.name] for cell in cells), (cell.dataset for cell in cells))
            self._progress.finish_cell(f"{len(cells)} cells FAILED: {who}", measured=False, cells=len(cells))
        else:
            for cell in cells:
                self._progress.finish_cell(f"{self._label(cell)}: FAILED", measured=False)

    def _add_failure(self, cell: Cell, error: ClipevalError) -> None:
        self.failures.append((cell, error))
        if not self._is_only_absent(cell):
            self._add_row(cell, str(error), "failed")

    def _label(self, cell: Cell) -> str:
        """A cell in the words of the tables."""
        shots = f", {cell.shots} shots (seed {cell.seed})" if cell.shots is not None else ""
        return (
            SEPARATOR.join((self._names[cell.model.name], cell.dataset, vocabulary.task(cell.task.name).words)) + shots
        )

    def _ended(self, cell: Cell) -> None:
        """After the last cell of a checkpoint people can look at what is measured by now."""
        name = cell.model.name
        if name in self._left:  # not of those that nobody tried to measure
            self._left[name] -= 1
        if self._left.get(name) == 0:
            del self._left[name]
            if self._left or self._plan.coming:  # at the end of the run the tables are written anyway
                self._interim.update()

    def _say_once(self, line: str) -> None:
        """A line that other checkpoints give cause for too."""
        if line not in self._said:
            self._said.add(line)
            self._progress.line(line)

    def _is_only_absent(self, cell: Cell) -> bool:
        """Whether an offline run lacks what the cell needs while a value of it stands: that says nothing against it."""
        standing = self._ledger.standing.get(cell.measurement) if cell.state == "missing" else None
        return standing is not None and not standing.failed

    def _add_row(self, cell: Cell, reason: str, status: Status) -> None:
        info, dataset = self._plan.info(cell.model), self._plan.dataset(cell.dataset)
        self._ledger.add_cell(cell.id, [failed_row(cell, info, dataset, reason, status, self._plan.remarks(cell))])

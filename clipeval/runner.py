"""``clipeval run``: build the plan, execute it, write the table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipeval import config as configuration
from clipeval import plan as planning
from clipeval.console import RunProgress, say
from clipeval.errors import EXIT_BUG, EXIT_NOT_MEASURED, EXIT_OK, ClipevalError, UsageError
from clipeval.plan import Cell, Options, Plan
from clipeval.results import table
from clipeval.results.ledger import Ledger, Row, exclusive

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Outcome:
    """What a run leaves: all rows of the results folder, this run's cells, and what could not be measured."""

    rows: list[Row]
    cells: tuple[Cell, ...]
    failures: list[tuple[Cell, ClipevalError]] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """0, 3 when a cell could not be measured, 70 when a bug was met."""
        codes = [error.exit_code for _, error in self.failures]
        return EXIT_BUG if EXIT_BUG in codes else EXIT_NOT_MEASURED if codes else EXIT_OK


def run(
    models: Sequence[str] | str = (),
    datasets: Sequence[str] | str = (),
    tasks: Sequence[str] | str = (),
    *,
    out: str | Path = "results",
    config: str | Path | None = None,
    limit: int | None = None,
    seed: int = 0,
    shots: Sequence[int | None] | None = None,
    device: str = "auto",
    precision: str = "fp32",
    batch_size: int = 64,
    workers: int | None = None,
    rerun: str = "missing",
    offline: bool = False,
) -> pd.DataFrame:
    """Evaluate checkpoints on data sets and return the tidy table of the results folder ``out``.

    The arguments are those of ``clipeval run``. A cell that cannot be measured is a row with status ``failed``; wrong
    arguments raise UsageError.
    """
    from clipeval.results.schema import to_frame

    options = make_options(out, limit, seed, shots, device, precision, batch_size, workers, rerun, offline)
    asked = (_words(models), _words(datasets), _words(tasks))
    return to_frame(execute(configuration.load(config), *asked, options, quiet=True).rows)


def _words(value: Sequence[str] | str) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


def make_options(
    out: str | Path,
    limit: int | None,
    seed: int,
    shots: Sequence[int | None] | None,
    device: str,
    precision: str,
    batch_size: int,
    workers: int | None,
    rerun: str,
    offline: bool,
) -> Options:
    """Validated options; ``auto`` and None are filled in from this machine. Raises UsageError."""
    if limit is not None and limit < 1:
        raise UsageError(f"--limit {limit}: expected a number of samples of at least 1.")
    if batch_size < 1:
        raise UsageError(f"--batch-size {batch_size}: expected at least 1.")
    if shots is not None and any(k is not None and k < 1 for k in shots):
        raise UsageError("--shots: expected numbers of images per class of at least 1, or 'full'.")
    if precision not in ("fp32", "bf16", "fp16"):
        raise UsageError(f"--precision {precision}: choose fp32, bf16 or fp16.")
    if rerun not in planning.RERUN_CHOICES:
        raise UsageError(f"--rerun {rerun}: choose {', '.join(planning.RERUN_CHOICES)}.")
    from clipeval import machine

    device = machine.resolve_device(device)
    return Options(
        Path(out),
        limit,
        seed,
        None if shots is None else tuple(shots),
        device,
        precision,
        batch_size,
        machine.default_workers() if workers is None else workers,
        rerun,
        offline,
    )


def execute(
    config: configuration.Config,
    model_words: Sequence[str],
    dataset_words: Sequence[str],
    task_words: Sequence[str],
    options: Options,
    *,
    quiet: bool = False,
) -> Outcome:
    """Build the plan and execute it. On an interrupt the table of what is finished is written before it goes on."""
    with exclusive(options.out):
        ledger = Ledger(options.out)
        if ledger.damaged_lines and not quiet:
            numbers = ", ".join(map(str, ledger.damaged_lines))
            say(
                f"{ledger.path}: line {numbers} cannot be read (a run was cut off there); "
                "what it held is measured again."
            )
        plan = planning.build(config, model_words, dataset_words, task_words, options, ledger)
        failures: list[tuple[Cell, ClipevalError]] = []
        try:
            if plan.to_do() or plan.suites:
                from clipeval.executors.local import LocalExecutor

                with RunProgress(len(plan.to_do()), quiet) as progress:
                    executor = LocalExecutor(plan, ledger, options, progress)
                    failures = executor.failures
                    executor.execute()
        finally:
            rows = table.current_rows(ledger)
            table.write(options.out, rows)
        return Outcome(rows, plan.cells, failures)


def dry_run(
    config: configuration.Config,
    model_words: Sequence[str],
    dataset_words: Sequence[str],
    task_words: Sequence[str],
    options: Options,
) -> list[dict[str, Any]]:
    """The plan as one record per cell, with its state and estimated cost; nothing is measured or downloaded."""
    ledger = Ledger(options.out)
    plan = planning.build(config, model_words, dataset_words, task_words, options, ledger, dry=True)
    return [_planned(cell, plan, table.current_rows(ledger), options) for cell in plan.cells]


def _planned(cell: Cell, plan: Plan, rows: list[Row], options: Options) -> dict[str, Any]:
    dataset = plan.datasets.get(cell.dataset)
    images = None if dataset is None else min(len(dataset), cell.limit or len(dataset))
    speeds = [
        row["images_per_second"]
        for row in rows
        if row.get("images_per_second")
        and row.get("arch") == cell.model.arch
        and (row.get("device"), row.get("precision")) == (options.device, options.precision)
    ]
    to_do = cell.state == "to do" and images is not None and bool(speeds)
    return {
        "model": cell.model.name,
        "dataset": cell.dataset,
        "split": cell.entry.split,
        "task": cell.task.name,
        "shots": cell.shots,
        "seed": cell.seed,
        "state": cell.state,
        "images": images,
        "estimated_seconds": 0.0 if cell.state == "done" else images / max(speeds) if to_do and images else None,
        "reason": cell.reason,
        "cell": cell.id,
    }

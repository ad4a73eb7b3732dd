"""``clipeval run``: build the plan, execute it, write the table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipeval import config as configuration
from clipeval import datasets
from clipeval.console import RunProgress, say
from clipeval.errors import EXIT_BUG, EXIT_NOT_MEASURED, EXIT_OK, ClipevalError, MeasureError, UsageError
from clipeval.evaluation import plan as planning
from clipeval.evaluation.journal import Journal
from clipeval.evaluation.plan import Cell, Options, Plan
from clipeval.results import table
from clipeval.results.ledger import Ledger, Row, exclusive

if TYPE_CHECKING:
    import pandas as pd

EXECUTORS = ("local", "ray")


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
    executor: str = "local",
    ray_address: str | None = None,
    rerun: str = "missing",
    offline: bool = False,
) -> pd.DataFrame:
    """Evaluate checkpoints on data sets and return the tidy table of the results folder ``out``.

    The arguments are those of ``clipeval run``. A cell that cannot be measured is a row with status ``failed``; wrong
    arguments raise UsageError.
    """
    from clipeval.results.schema import to_frame

    options = make_options(
        out, limit, seed, shots, device, precision, batch_size, workers, executor, ray_address, rerun, offline
    )
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
    executor: str,
    ray_address: str | None,
    rerun: str,
    offline: bool,
) -> Options:
    """Validated options; ``auto`` and None are filled in from this machine, or by Ray's workers from theirs.

    Raises UsageError.
    """
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
    if executor not in EXECUTORS:
        raise UsageError(f"--executor {executor}: choose {' or '.join(EXECUTORS)}.")
    if ray_address and executor != "ray":
        raise UsageError(f"--ray-address {ray_address}: only --executor ray joins a cluster.")
    from clipeval import machine

    if executor == "local":
        device, workers = machine.resolve_device(device), machine.default_workers() if workers is None else workers
    elif device not in ("auto", "cpu", "cuda"):
        raise UsageError(f"--device {device}: Ray chooses the GPU of each worker. Give cuda, cpu or auto.")
    return Options(
        out=Path(out),
        limit=limit,
        seed=seed,
        shots=None if shots is None else tuple(shots),
        device=device,
        precision=precision,
        batch_size=batch_size,
        workers=workers or 0,
        rerun=rerun,
        offline=offline,
        executor=executor,
        ray_address=ray_address,
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
        if options.offline:
            for reason in missing_offline(plan):
                say(f"missing: {reason}")
        failures: list[tuple[Cell, ClipevalError]] = []
        try:
            if plan.to_do() or plan.suites:
                with RunProgress(len(plan.to_do()), quiet) as progress:
                    journal = Journal(plan, ledger, options, progress)
                    failures = journal.failures
                    _measure(journal.open(), plan, journal, options, progress)
        finally:
            rows = table.current_rows(ledger)
            table.write(options.out, rows)
        return Outcome(rows, plan.cells, failures)


def missing_offline(plan: Plan) -> list[str]:
    """What an offline run will not find on this machine: data sets, checkpoints, splits to train on. Each once."""
    reasons = {cell.reason: None for cell in plan.cells if cell.state == "failed"}
    training = {cell.dataset: cell.entry for cell in plan.cells if cell.state == "to do" and "train" in cell.task.needs}
    for name, entry in training.items():
        for split in filter(None, (entry.train_split, entry.val_split)):
            try:
                datasets.open_dataset(name, entry, split, offline=True)
            except MeasureError as error:
                reasons[str(error)] = None
    return list(reasons)


def _measure(cells: list[Cell], plan: Plan, journal: Journal, options: Options, progress: RunProgress) -> None:
    if options.executor == "ray":
        from clipeval.evaluation.ray import RayExecutor, cluster

        if cells:
            with cluster(options.ray_address):
                RayExecutor(plan, journal, options).execute(cells)
    else:
        from clipeval.evaluation import local
        from clipeval.evaluation.workbench import Workbench

        local.execute(cells, Workbench(options, progress, plan.datasets), journal)


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

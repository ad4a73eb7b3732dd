"""``clipeval run``: build the plan, execute it, write the table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipeval import config as configuration
from clipeval import embeddings
from clipeval.console import RunProgress, is_watched, say
from clipeval.errors import EXIT_BUG, EXIT_NOT_MEASURED, EXIT_OK, ClipevalError
from clipeval.evaluation import plan as planning
from clipeval.evaluation.arrivals import Arrivals
from clipeval.evaluation.cell import Cell
from clipeval.evaluation.cost import planned
from clipeval.evaluation.failures import log
from clipeval.evaluation.journal import Journal
from clipeval.evaluation.plan import Plan, to_do
from clipeval.evaluation.request import Options, Request, batch
from clipeval.names import display_names
from clipeval.paths import cache_dir, expand
from clipeval.results import table
from clipeval.results.ledger import Ledger, Row, exclusive
from clipeval.spelling import also, several

if TYPE_CHECKING:
    import pandas as pd

    from clipeval.evaluation.crew import Crew

_MOST_LISTED = 5


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


@also(model="models", dataset="datasets", task="tasks")
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
    batch_size: int | str = "auto",
    compile: bool = False,
    workers: int | None = None,
    executor: str | None = None,
    ray_address: str | None = None,
    rerun: str = "missing",
    offline: bool = False,
    keep_weights: bool = True,
    allow_python: bool = False,
    prompts: str | None = None,
    progress: bool | None = None,
) -> pd.DataFrame:
    """Evaluate checkpoints on data sets and return the tidy table of the results folder ``out``.

    The arguments are those of ``clipeval run``. ``progress`` is shown on a terminal and in a notebook, and with True
    also in a pipe, as lines; with False nowhere. A cell that cannot be measured is a row with status ``failed``; wrong
    arguments raise UsageError.
    """
    from clipeval.results.schema import to_frame

    options = Options(
        out=expand(out),
        limit=limit,
        seed=seed,
        shots=shots,
        device=device,
        precision=precision,
        **batch(batch_size),
        compile=compile,
        workers=workers,
        executor=executor,
        ray_address=ray_address,
        rerun=rerun,
        offline=offline,
        keep_weights=keep_weights,
        allow_python=allow_python,
    )
    asked = {"models": several(models), "datasets": several(datasets), "tasks": several(tasks)}
    request = Request(config=configuration.load(config), options=options, prompts=prompts, **asked)
    quiet = not (is_watched() if progress is None else progress)
    return to_frame(execute(request, quiet=quiet).rows)


def execute(request: Request, *, quiet: bool = False) -> Outcome:
    """Build the plan and execute it. On an interrupt the table of what is finished is written before it goes on."""
    options = request.options
    table.refuse_foreign(options.out)
    with exclusive(options.out):
        ledger = Ledger(options.out)
        if ledger.damaged_lines and not quiet:
            say(
                f"{ledger.path}: line {_listed(ledger.damaged_lines)} cannot be read (a run was cut off there); "
                "what it held is measured again."
            )
        with RunProgress(0, quiet) as progress:
            plan = planning.build(request, ledger, told=progress.wait)
            left = embeddings.earlier(cache_dir()) if to_do(plan.cells) or plan.coming else None
            if not quiet:
                say(plan.summary())
            for line in filter(None, [*plan.meant, *plan.news(), left]):
                say(line)
        failures: list[tuple[Cell, ClipevalError]] = []
        try:
            with RunProgress(plan.expected, quiet) as progress:
                progress.names = display_names(asdict(info) for info in plan.infos())
                journal = Journal(plan, ledger, progress)
                failures = journal.failures
                _measure(plan, journal, progress)
        finally:
            rows = table.current_rows(ledger)
            table.write(options.out, rows, ledger.digest)
        log(options.out, (error for _, error in failures))
        return Outcome(rows, plan.cells, failures)


def _listed(numbers: Sequence[int]) -> str:
    more = f" and {len(numbers) - _MOST_LISTED} more" if len(numbers) > _MOST_LISTED else ""
    return ", ".join(map(str, numbers[:_MOST_LISTED])) + more


def _measure(plan: Plan, journal: Journal, progress: RunProgress) -> None:
    options = plan.request.options
    cells, arriving = journal.open(plan.cells), Arrivals(plan, journal, progress)
    if not cells and not arriving.pending:
        return
    if options.executor != "local":
        from clipeval.evaluation.dispatch import Dispatcher

        Dispatcher(plan, journal, _crew(options), progress).execute(cells, arriving)
        return
    from clipeval.evaluation import local
    from clipeval.evaluation.workbench import Workbench

    if options.uses_one_gpu_of_several:
        progress.line("--keep-weights no: in one process, on one of the GPUs")
    bench = Workbench(options, progress, plan.splits, plan.checkpoints)
    try:
        local.execute(cells, arriving, bench, journal)
    finally:
        bench.close()


def _crew(options: Options) -> Crew:
    if options.executor == "ray":
        from clipeval.evaluation.ray import RayCrew

        return RayCrew(options)
    from clipeval.evaluation.processes import Processes

    return Processes(options)


def dry_run(request: Request) -> tuple[list[dict[str, Any]], list[tuple[Cell, ClipevalError]]]:
    """The plan as one record per cell, with its state and estimated cost, and the bugs that were met; nothing is
    measured or downloaded."""
    ledger = Ledger(request.options.out)
    with RunProgress(0, quiet=not is_watched()) as progress:
        plan = planning.build(request, ledger, dry=True, told=progress.wait)
    for line in plan.meant:
        say(line)
    bugs: list[tuple[Cell, ClipevalError]] = [(cell, cell.bug) for cell in plan.cells if cell.bug]
    return planned(plan, ledger), bugs

"""The command ``clipeval-train ladder``: what its options ask for, done and told."""

from __future__ import annotations

import json
import shlex
import signal
from dataclasses import dataclass
from pathlib import Path

from clipeval.console import say, show, show_json
from clipeval.errors import EXIT_NOT_MEASURED, EXIT_OK, UsageError, few
from clipeval_train.ladder.grid import Ladder, load_ladder
from clipeval_train.ladder.jobs import Outcome, train
from clipeval_train.ladder.processes import slots
from clipeval_train.ladder.runs import FINISHED, Run, is_training, state
from clipeval_train.ladder.waiting import left_to_do


@dataclass(frozen=True)
class Request:
    """The words of the command line."""

    config: Path
    settings: tuple[str, ...] = ()
    plan: bool = False
    jobs: int | None = None
    slurm: bool = False
    ray_address: str | None = None
    budget: float | None = None
    results: list[str] | None = None
    as_json: bool = False


def run_ladder(request: Request) -> int:
    """Do one of: plan, write a Slurm script, allocate a budget, train. Returns the exit code. Raises ClipevalError."""
    _refuse_combinations(request)
    ladder = load_ladder(request.config, request.settings)
    if request.plan:
        _plan(ladder, request)
    elif request.slurm:
        _slurm(ladder, request)
    elif request.budget is not None:
        _budget(ladder, request)
    else:
        return _train(ladder, request)
    return EXIT_OK


def _refuse_combinations(request: Request) -> None:
    chosen = [
        name
        for name, given in (("--plan", request.plan), ("--slurm", request.slurm), ("--budget", request.budget))
        if given is not None and given is not False
    ]
    if len(chosen) > 1:
        raise UsageError(f"{' and '.join(chosen)}: give one of them at a time.")
    if request.ray_address is not None and request.jobs is not None:
        raise UsageError(
            "--ray-address and --jobs: the cluster decides how many runs train side by side. Leave out --jobs."
        )
    if (request.budget is None) != (not request.results):
        raise UsageError("--budget and --results belong together: laws of the results are read at the budget.")


def _plan(ladder: Ladder, request: Request) -> None:
    from clipeval_train.ladder.plan import plan, print_plan

    found = plan(ladder, slots(request.jobs))
    show_json(found.document()) if request.as_json else print_plan(found)


def _slurm(ladder: Ladder, request: Request) -> None:
    from clipeval_train.ladder import slurm

    states = {run.name: state(run) for run in ladder.runs}
    left, queued = left_to_do(ladder.runs, states), slurm.in_queue(ladder.out)
    under_way: set[str] = set()
    for run in left:  # what goes on from such a run is trained by the same task, or offered by a later call
        if run.name in queued or run.after in under_way or is_training(run):
            under_way.add(run.name)
    new = [run for run in left if run.name not in under_way]
    if done := len(ladder.runs) - len(left):
        say(f"{done} of {len(ladder.runs)} runs are finished already.")
    if under_way:
        say(f"{len(under_way)} are training or in the queue, and left out: {few(sorted(under_way))}.")
    scripts = slurm.write_arrays(new, ladder.out, ladder.slurm, list(queued.values())) if new else []
    commands = [["sbatch", str(script)] for script in scripts]
    if new and not ladder.slurm:
        say("What your cluster needs goes into the plan: slurm: {partition: ..., gpus-per-task: 1, time: '12:00:00'}")
    if request.as_json:
        names = {"runs": [run.name for run in new], "under_way": sorted(under_way)}
        show_json({"commands": commands, **names})
    else:
        for command in commands:
            show(shlex.join(command))


def _budget(ladder: Ladder, request: Request) -> None:
    from clipeval_train.ladder.budget import allocate, print_allocation

    assert request.budget is not None
    found = allocate(ladder.runs, request.results or [], request.budget)
    if request.as_json:
        show_json({"allocation": json.loads(found.to_json(orient="records"))})
    else:
        print_allocation(found)


def _train(ladder: Ladder, request: Request) -> int:
    left = left_to_do(ladder.runs, {run.name: state(run) for run in ladder.runs})
    processes = slots(request.jobs) if request.ray_address is None else []
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # how a scheduler interrupts
    if done := len(ladder.runs) - len(left):
        say(f"{done} of {len(ladder.runs)} runs are finished already.")
    try:
        outcomes = train(left, processes) if request.ray_address is None else _on_cluster(left, request.ray_address)
    except KeyboardInterrupt:
        say("Interrupted. The same command continues.")
        raise
    failed = [outcome for outcome in outcomes if outcome.reason]
    code = EXIT_NOT_MEASURED if failed else EXIT_OK
    if request.as_json:
        ended = {outcome.run.name: outcome.row() for outcome in outcomes}
        rows = [ended.get(run.name, {"run": run.name, "state": FINISHED, "out": run.config.out}) for run in ladder.runs]
        show_json({"runs": rows, "exit_code": code})
    for outcome in failed:
        say(f"not trained: {outcome.run.name}: {outcome.reason} (log: {outcome.run.log})")
    if not failed:
        say(f"{len(ladder.runs)} runs in {ladder.out}. Evaluate them: clipeval run -m '{ladder.out}/*' ...")
    return code


def _on_cluster(runs: list[Run], address: str) -> list[Outcome]:
    if not runs:
        return []
    from clipeval_train.ladder.cluster import train_on_cluster

    return train_on_cluster(runs, address)

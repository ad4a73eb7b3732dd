"""Training the runs of a ladder side by side."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import active_children
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess

from clipeval.errors import UsageError, counted
from clipeval.files import write_text
from clipeval_train.ladder import child
from clipeval_train.ladder.outcomes import Outcome, Outcomes, begin_log, reason_of
from clipeval_train.ladder.processes import Slot, start, stop, together
from clipeval_train.ladder.runs import Run
from clipeval_train.ladder.waiting import Waiting

_SECONDS_TO_END = 30.0


@dataclass
class _Team:
    """A run that trains, the processes that do, and what they occupy."""

    run: Run
    slots: list[Slot]
    processes: list[BaseProcess]
    since: float


def train(runs: Sequence[Run], slots: Sequence[Slot]) -> list[Outcome]:
    """Train the runs, each on as many slots as it has processes, in the order of ``waiting.Waiting``.

    A run that fails leaves alone the others that do not go on from it. An interrupt ends all of them and is passed on.
    Raises UsageError for a run with more processes than there are slots.
    """
    _require_room(runs, slots)
    waiting, free = Waiting(runs), list(slots)
    teams: list[_Team] = []
    outcomes = Outcomes(len(runs))
    try:
        while waiting or teams:
            while run := waiting.take(len(free)):
                teams.append(_start(run, [free.pop(0) for _ in range(run.processes)]))
            everyone = [process for team in teams for process in team.processes]
            wait([process.sentinel for process in everyone if process.exitcode is None])
            for team, code in [(team, _ended(team)) for team in teams]:
                if code is None:
                    continue
                teams.remove(team)
                free += team.slots
                outcomes.add(waiting, Outcome(team.run, time.monotonic() - team.since, reason_of(code, team.run)))
    finally:
        stop(active_children())  # not only `teams`: an interrupt may come between a start and its entry there
    return outcomes.all


def _require_room(runs: Sequence[Run], slots: Sequence[Slot]) -> None:
    gpus = {slot.gpu for slot in slots if slot.gpu is not None}
    for run in runs:
        if run.processes > len(slots):
            more = "a machine with more GPUs" if gpus else f"--jobs {run.processes}"
            raise UsageError(
                f"processes: {run.name} takes {run.processes} together, and {len(slots)} at most train side by side "
                f"here. Give {more}, or fewer `processes`."
            )
        if run.processes > 1 and gpus and len(slots) > len(gpus):
            raise UsageError(
                f"--jobs: {len(slots)} processes would share {counted(len(gpus), 'GPU')}, and each of those that train "
                f"{run.name} together needs its own. Give --jobs {len(gpus)}."
            )


def _start(run: Run, slots: list[Slot]) -> _Team:
    write_text(run.file, run.yaml)
    begin_log(run)
    processes = [start(child.pretrain, (str(run.file),), slot, run.log) for slot in together(slots)]
    return _Team(run, slots, processes, time.monotonic())


def _ended(team: _Team) -> int | None:
    """The exit code of its run, None while it trains. Where one process fails the others are of no use."""
    failed = [process for process in team.processes if process.exitcode]
    if failed:
        stop(team.processes, _SECONDS_TO_END)
        return failed[0].exitcode
    return 0 if all(process.exitcode == 0 for process in team.processes) else None

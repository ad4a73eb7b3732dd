"""Training the runs of a ladder side by side."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import active_children
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from signal import Signals
from typing import Any

from clipeval.console import say
from clipeval.files import write_text
from clipeval_train import checkpoint
from clipeval_train.ladder import child
from clipeval_train.ladder.grid import Run
from clipeval_train.ladder.processes import Slot, start, stop

FINISHED, STARTED, NEW = "finished", "started", "new"


@dataclass(frozen=True)
class Outcome:
    """How a run ended in this call. ``reason`` is empty for a finished one."""

    run: Run
    seconds: float
    reason: str

    def row(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "run": self.run.name,
            "state": "failed" if self.reason else FINISHED,
            "out": self.run.config.out,
            "seconds": self.seconds,
            "reason": self.reason,
            "log": str(self.run.log),
        }


def state(run: Run) -> str:
    """``finished`` with exactly this configuration, ``started`` or ``new``."""
    newest = checkpoint.newest(Path(run.config.out))
    if newest is None:
        return NEW
    same = run.file.is_file() and run.file.read_text("utf-8") == run.yaml
    return FINISHED if same and newest.name == checkpoint.path_of(Path(), run.config.samples).name else STARTED


def train(runs: Sequence[Run], slots: Sequence[Slot]) -> list[Outcome]:
    """Train every run that is not finished, the most expensive first, one per slot at a time.

    A run that fails leaves the others alone. An interrupt ends all of them and is passed on.
    """
    waiting = deque(runs)
    free = deque(slots)
    running: dict[BaseProcess, tuple[Run, Slot, float]] = {}
    outcomes: list[Outcome] = []
    try:
        while waiting or running:
            while waiting and free:
                run, slot = waiting.popleft(), free.popleft()
                running[_start(run, slot)] = run, slot, time.monotonic()
            ended = wait([process.sentinel for process in running])
            for process in [process for process in running if process.sentinel in ended]:
                run, slot, since = running.pop(process)
                process.join()
                free.append(slot)
                outcomes.append(Outcome(run, time.monotonic() - since, reason_of(process.exitcode or 0, run)))
                say(f"[{len(outcomes)}/{len(runs)}] {line_of(outcomes[-1])}")
    finally:
        stop(active_children())  # not only `running`: an interrupt may come between a start and its entry there
    return outcomes


def _start(run: Run, slot: Slot) -> BaseProcess:
    write_text(run.file, run.yaml)
    run.log.write_bytes(b"")
    return start(child.pretrain, (str(run.file),), slot, run.log)


def reason_of(code: int, run: Run) -> str:
    """Why a run that ended in ``code`` failed, with the last line it said; empty for one that did not."""
    if code == 0:
        return ""
    if code < 0:
        return f"killed by {Signals(-code).name}"
    said = run.log.read_text("utf-8", errors="replace").strip().splitlines() if run.log.exists() else []
    return f"exit code {code}: {said[-1] if said else 'it said nothing'}"


def line_of(outcome: Outcome) -> str:
    """An outcome for people."""
    if outcome.reason:
        return f"{outcome.run.name}: failed: {outcome.reason} (log: {outcome.run.log})"
    return f"{outcome.run.name}: {outcome.seconds:.0f} s, {_last_loss(outcome.run)}"


def _last_loss(run: Run) -> str:
    lines = [json.loads(line) for line in (Path(run.config.out) / "log.jsonl").read_text("utf-8").splitlines()]
    whole = [line for line in lines if line.get("batch") == run.config.batch_size]
    return f"loss {(whole or lines)[-1]['loss']:.3f}"

"""How runs of a ladder ended, and what their logs say of it."""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass
from pathlib import Path
from signal import Signals
from typing import Any

from clipeval.console import say
from clipeval_train.ladder.runs import FINISHED, Run
from clipeval_train.ladder.waiting import Waiting
from clipeval_train.log import records

_ATTEMPT = "=="
_ENDED = "another process of this run has ended"


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


class Outcomes:
    """How runs ended, told as they end."""

    def __init__(self, runs: int) -> None:
        self.all: list[Outcome] = []
        self._runs = runs

    def add(self, waiting: Waiting[Run], outcome: Outcome) -> None:
        """Tell ``outcome``; what waits for the run may begin, or never will."""
        self.all.append(outcome)
        say(f"[{len(self.all)}/{self._runs}] {line_of(outcome)}")
        if not outcome.reason:
            waiting.done(outcome.run)
            return
        for run in waiting.lost(outcome.run):
            self.all.append(Outcome(run, 0.0, f"the run that it goes on from, {run.after}, was not trained"))
            say(f"[{len(self.all)}/{self._runs}] {line_of(self.all[-1])}")


def begin_log(run: Run, where: str = "") -> None:
    """A line in the run's log for a new attempt, below the earlier ones."""
    run.log.parent.mkdir(parents=True, exist_ok=True)
    with open(run.log, "a", encoding="utf-8") as log:
        log.write(f"{_ATTEMPT} {time.strftime('%Y-%m-%d %H:%M:%S')} {where or socket.gethostname()}\n")


def reason_of(code: int, run: Run) -> str:
    """Why a run that ended in ``code`` failed, with the last line it said; empty for one that did not."""
    if code == 0:
        return ""
    if code < 0:
        return f"killed by {Signals(-code).name}"
    said = run.log.read_text("utf-8", errors="replace").strip().splitlines() if run.log.exists() else []
    telling = [line for line in said if _ENDED not in line]  # of several processes one knows why
    last = telling[-1] if telling and not telling[-1].startswith(_ATTEMPT) else "it said nothing"
    return f"exit code {code}: {last}"


def line_of(outcome: Outcome) -> str:
    """An outcome for people."""
    if outcome.reason:
        return f"{outcome.run.name}: failed: {outcome.reason} (log: {outcome.run.log})"
    return f"{outcome.run.name}: {outcome.seconds:.0f} s, {_last_loss(outcome.run)}"


def _last_loss(run: Run) -> str:
    told = [record for record in records(Path(run.config.out) / "log.jsonl") if "loss" in record]
    whole = [record for record in told if record["batch"] == run.config.batch_size]
    return f"loss {(whole or told)[-1]['loss']:.3f}" if told else "its log is empty or gone"

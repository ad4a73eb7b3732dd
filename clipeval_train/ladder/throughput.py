"""How fast and how large an architecture trains on this machine: a few steps of its real configuration, measured."""

from __future__ import annotations

import contextlib
import json
import platform
import resource
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from clipeval import digest
from clipeval.console import say
from clipeval.errors import MeasureError
from clipeval.files import write_text
from clipeval_train.config import parse_pretrain
from clipeval_train.ladder.processes import Slot, call
from clipeval_train.ladder.runs import Run, hidden
from clipeval_train.log import records
from clipeval_train.loop import pretrain

_NOT_PART_OF_A_STEP = (
    *("samples", "seed", "out", "warmup", "schedule", "cooldown", "start_from", "save_every", "save_minutes", "keep"),
    *("evaluate", "validate", "loggers", "resume", "lanes"),
)
_FIRST_STEPS, _SECONDS, _MOST_STEPS = 4, 3.0, 400


@dataclass(frozen=True)
class Throughput:
    """Of one process alone: pairs per second, and its highest memory use in GB (of the GPU where there is one)."""

    samples_per_second: float
    memory_gb: float


def measure(runs: Sequence[Run], out: Path, slot: Slot) -> list[Throughput]:
    """The throughput of one process of every run, measured once per architecture and kept in ``out``.

    Of several processes one has its part of the batch to do. Data sources share a measurement, as they share the step.
    Raises MeasureError when the steps fail.
    """
    memory = hidden(out) / "throughput.json"
    known: dict[str, dict[str, float]] = {}
    with contextlib.suppress(OSError, ValueError):  # the memory only saves time
        known = json.loads(memory.read_text("utf-8"))
    keys = [_key(run, slot) for run in runs]
    for run, key in zip(runs, keys, strict=True):
        if key not in known:
            say(f"measuring {run.architecture.name} on this machine")
            known[key] = asdict(_measured(run, slot))
            write_text(memory, json.dumps(known, indent=1))
    return [Throughput(**known[key]) for key in keys]


def _step(run: Run) -> dict[str, Any]:
    step = {key: value for key, value in run.document.items() if key not in _NOT_PART_OF_A_STEP}
    return step | {"batch_size": max(2, run.config.batch_size // run.processes)}


def _key(run: Run, slot: Slot) -> str:
    step = {key: value for key, value in _step(run).items() if key != "data"}
    return digest.of_value([step, platform.node(), slot.threads, slot.gpu])


def _measured(run: Run, slot: Slot) -> Throughput:
    step = _step(run)
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "throughput.json"
        code = call(_steps, (step, str(result)), slot, Path(folder) / "log")
        if code != 0:
            said = (Path(folder) / "log").read_text("utf-8", errors="replace").strip()
            raise MeasureError(f"{run.name}: the steps to measure its speed failed (exit code {code}).\n{said}")
        return Throughput(**json.loads(result.read_text("utf-8")))


def _steps(step: dict[str, Any], result: str) -> None:
    """In a process of its own: a few steps to guess the speed, then as many as fill some seconds."""
    rate = _rate(step, _FIRST_STEPS, Path(result).parent / "first")
    steps = min(_MOST_STEPS, max(_FIRST_STEPS, int(_SECONDS * rate / step["batch_size"])))
    found = Throughput(_rate(step, steps, Path(result).parent / "second"), _peak_memory_gb())
    Path(result).write_text(json.dumps(asdict(found)), "utf-8")


def _rate(step: dict[str, Any], steps: int, out: Path) -> float:
    """Samples per second by the run's own log, from its second line on: the first one holds the start."""
    pretrain(parse_pretrain(step | {"samples": steps * step["batch_size"], "out": str(out)}, "defaults"))
    lines = records(out / "log.jsonl")
    ends = [(line["samples"], line["samples_per_second"]) for line in lines if "samples_per_second" in line]
    parts = [(stop - start, rate) for (start, _), (stop, rate) in pairwise(ends)]
    return sum(count for count, _ in parts) / sum(count / rate for count, rate in parts)


def _peak_memory_gb() -> float:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_reserved() / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9

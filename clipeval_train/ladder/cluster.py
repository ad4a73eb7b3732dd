"""Training the runs of a ladder on a Ray cluster, each in a process of its own on one GPU, or one core without GPUs.

The plan's folder and its data lie on a file system that all machines share. A run whose machine is lost begins again
from its newest checkpoint.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clipeval.console import say
from clipeval.evaluation.ray import cluster
from clipeval.files import write_text
from clipeval_train.ladder import child
from clipeval_train.ladder.outcomes import Outcome, line_of, reason_of
from clipeval_train.ladder.runs import Run

_RETRIES = 3


def train_on_cluster(runs: Sequence[Run], address: str) -> list[Outcome]:
    """Train ``runs`` on the cluster at ``address`` (``local``: a Ray of this machine). Raises as ``cluster`` does.

    A run that fails leaves the others alone. An interrupt ends all of them and is passed on.
    """
    with cluster(address):
        import ray

        on_gpu = bool(ray.cluster_resources().get("GPU"))
        share = {"num_gpus": 1.0} if on_gpu else {"num_cpus": 1.0}
        options: Any = {"max_calls": 1, "max_retries": _RETRIES, **share}
        task: Any = ray.remote(**options)(_pretrain)
        pending = {}
        for run in runs:
            write_text(run.file, run.yaml)
            pending[task.remote(str(run.file), str(run.log), str(Path.cwd()), on_gpu)] = run
        outcomes: list[Outcome] = []
        while pending:
            (ended,), _ = ray.wait(list(pending), num_returns=1)
            run = pending.pop(ended)
            try:
                code, seconds = ray.get(ended)
                outcomes.append(Outcome(run, seconds, reason_of(code, run)))
            except ray.exceptions.RayError as error:
                outcomes.append(Outcome(run, float("nan"), str(error).strip().splitlines()[0]))
            say(f"[{len(outcomes)}/{len(runs)}] {line_of(outcomes[-1])}")
    return outcomes


def _pretrain(file: str, log: str, folder: str, on_gpu: bool) -> tuple[int, float]:
    """Runs on a machine of the cluster: the exit code of ``clipeval-train pretrain`` and the seconds it took."""
    os.chdir(folder)
    if not on_gpu:
        os.environ["OMP_NUM_THREADS"] = "1"
    with open(log, "wb") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    started = time.monotonic()
    try:
        child.pretrain(file)
    except SystemExit as end:
        return int(end.code or 0), time.monotonic() - started
    return 0, time.monotonic() - started

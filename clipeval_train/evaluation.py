"""Evaluation while training: ``clipeval run`` on the run's own checkpoints, its rows are the learning curves."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import torch

from clipeval import config as configuration
from clipeval import datasets, machine
from clipeval.config import Config
from clipeval.console import say
from clipeval.errors import ClipevalError
from clipeval.evaluation import run as runner
from clipeval.evaluation.request import Options, Request
from clipeval.files import write_atomically
from clipeval.results.ledger import Ledger, measurement
from clipeval.tasks import canonical_name
from clipeval_train import checkpoint as checkpoints
from clipeval_train.config import EvaluateEntry
from clipeval_train.distributed import World

VALIDATION = "validation"
"""The task of rows that are not of ``clipeval run`` (``validation.py``)."""


def check(entry: EvaluateEntry) -> None:
    """Raises UsageError for data sets and tasks that name nothing, before any training is done."""
    datasets.resolve(entry.datasets, configuration.load())
    for task in entry.tasks:
        canonical_name(task)


def evaluate(entry: EvaluateEntry, checkpoint: Path, out: Path, world: World) -> None:
    """Measure a checkpoint on the configured data sets into the table of OUT/results. All ranks must call it.

    The ranks share the data sets out among them, each into a results folder of its own. Rank 0 then takes over what is
    finished there and runs the whole request: it measures what is left, if anything, adds suite averages and writes the
    table. Each value is computed by one process, so it is that of ``clipeval run``, whatever the number of ranks. What
    the table has already is not measured again. A cell that cannot be measured is reported and does not end the
    training.
    """
    if entry.use_ema:
        checkpoint = checkpoints.averaged(checkpoint, out, world)
    settings, results = configuration.load(), out / "results"
    shares = results / "ranks"
    devices = [world.device] if world.device.type == "cuda" else []
    with torch.random.fork_rng(devices):  # the training draws the same numbers with or without evaluations
        if world.size > 1:
            mine = list(datasets.resolve(entry.datasets, settings).datasets)[world.rank :: world.size]
            with suppress(ClipevalError):  # rank 0 meets the same error and reports it
                _take_over(results, shares / str(world.rank))
                _run(settings, checkpoint, mine, entry.tasks, shares / str(world.rank), world)
            world.barrier()
        if world.is_main:
            try:
                for share in sorted(shares.glob("*")):
                    _take_over(share, results)
                shutil.rmtree(shares, ignore_errors=True)
                _report(_run(settings, checkpoint, entry.datasets, entry.tasks, results, world), checkpoint)
            except ClipevalError as error:
                say(f"{checkpoint}: not evaluated: {error}")
        world.barrier()


def _run(
    settings: Config, checkpoint: Path, names: Sequence[str], tasks: Sequence[str], out: Path, world: World
) -> runner.Outcome:
    options = Options(out=out, device=str(world.device), workers=machine.workers_per_rank())
    models = [checkpoint.as_posix()]
    request = Request(config=settings, options=options, models=models, datasets=names, tasks=tasks)
    return runner.execute(request, quiet=True)


def _take_over(source: Path, target: Path) -> None:
    """Copy what is finished from one results folder to another."""
    theirs, ours = Ledger(source), Ledger(target)
    there = {(measurement(record.rows[0]), record.cell) for record in ours.records if record.finished}
    for key, record in theirs.standing.items():
        if record.finished and (key, record.cell) not in there:
            outcomes = Path("samples") / f"{record.cell}.parquet"
            if (source / outcomes).exists():
                write_atomically(target / outcomes, partial(shutil.copyfile, source / outcomes))
            ours.add_checkpoint(theirs.described(record.rows[0]))
            ours.add_cell(record.cell, record.rows)


def _report(outcome: runner.Outcome, checkpoint: Path) -> None:
    values = [
        f"{row['dataset']} {row['metric']} {row['value']:.4f}"
        for row in outcome.rows
        if row["model"] == checkpoint.as_posix()
        and row["status"] == "ok"
        and row["task"] != VALIDATION
        and row["metric"] in ("acc1", "image_retrieval_recall@5", "text_acc")
    ]
    say(f"{checkpoint}: {', '.join(values)}")
    for cell, error in outcome.failures:
        say(f"{checkpoint}: not measured: {cell.label}: {error}")

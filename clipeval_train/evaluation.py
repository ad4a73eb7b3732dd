"""Evaluation while training: ``clipeval run`` on the run's own checkpoints, its rows are the learning curves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import torch

from clipeval import config as configuration
from clipeval import datasets, machine
from clipeval.console import say
from clipeval.errors import ClipevalError
from clipeval.evaluation import plan as planning
from clipeval.evaluation import run as runner
from clipeval.evaluation.request import Options, Request
from clipeval.evaluation.schedule import Unit
from clipeval.evaluation.worker import Worker
from clipeval.results.ledger import Ledger
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

    Each rank encodes a part of the images of every data set; rank 0 puts them into its store and runs the request,
    which finds them there. What the table has already is not measured again. A cell that cannot be measured is reported
    and does not end the training.
    """
    if entry.use_ema:
        checkpoint = checkpoints.averaged(checkpoint, out, world)
    options = Options(out=out / "results", device=str(world.device), workers=machine.workers_per_rank())
    models, settings = [checkpoint.as_posix()], configuration.load()
    request = Request(config=settings, options=options, models=models, datasets=entry.datasets, tasks=entry.tasks)
    devices = [world.device] if world.device.type == "cuda" else []
    with torch.random.fork_rng(devices):  # the training draws the same numbers with or without evaluations
        if world.size > 1:
            _encode_together(request, world)
        if world.is_main:
            try:
                _report(runner.execute(request, quiet=True), checkpoint)
            except ClipevalError as error:
                say(f"{checkpoint}: not evaluated: {error}")
        world.barrier()


def _encode_together(request: Request, world: World) -> None:
    """What another rank cannot encode, and why is said, is left to rank 0; that meets its own errors again."""
    parts: list[list[Unit]] = []
    if world.is_main:
        with suppress(ClipevalError):
            parts = list(_parts(request, world.size))
    worker, error = Worker(), ""
    if isinstance(begun := worker.start(request.options, "."), ClipevalError):
        error = str(begun)
    for units in world.broadcast(parts):
        mine, reason, piece = units[world.rank], error, None
        if not error and mine.start < mine.stop:
            answer, piece = worker.work(mine, keep=True)
            reason = str(answer) if isinstance(answer, ClipevalError) else ""
        found = world.gather_objects((reason, piece))
        if world.is_main:
            for rank, (reason, _) in enumerate(found):
                if rank and reason:
                    say(f"{mine.cells[0].dataset}: process {rank} leaves its images to process 0: {reason}")
            worker.receive([piece for _, piece in found if piece])
    if not error:
        worker.close()


def _parts(request: Request, count: int) -> Iterator[list[Unit]]:
    """Of each data set that is here and is to be measured, as many parts in whole batches."""
    plan = planning.build(request, Ledger(request.options.out))
    for name, cell in {cell.dataset: cell for cell in planning.to_do(plan.cells)}.items():
        if dataset := plan.dataset(name):
            batch = request.options.batch_size
            borders = [
                min(part * -(-len(dataset) // (count * batch)) * batch, len(dataset)) for part in range(count + 1)
            ]
            yield [Unit("images", (cell,), *pair) for pair in pairwise(borders)]


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

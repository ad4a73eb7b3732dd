"""The processes of one run: agreed on what they train, alone in its folder, and of one fate."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel

from clipeval import digest
from clipeval.errors import ClipevalError, DataError, MeasureError, UsageError
from clipeval_train import checkpoint
from clipeval_train.distributed import World, open_world


@contextmanager
def together(config: BaseModel, out: Path, device: str = "auto") -> Iterator[World]:
    """The World of a run while the block runs; its process 0 holds the folder ``out``.

    Raises, in every process, UsageError when processes of different runs have met and when another run writes to
    ``out``, StoreError for ``out``, and MeasureError when another process has ended.
    """
    with open_world(device) as world, _one_fate(world):
        _check_same_run(world, config, out)
        with _claimed(out, world):
            yield world


def _check_same_run(world: World, config: BaseModel, out: Path) -> None:
    """A port alone does not tell runs apart."""
    job, step = (os.environ.get(key, "") for key in ("SLURM_JOB_ID", "SLURM_STEP_ID"))
    settings = digest.of_value(config.model_dump(mode="json"))
    name = f"{out} (settings {settings[:8]}{f', job {job}, step {step}' if job else ''})"
    if other := _first_other(runs := world.gather_objects((name, settings))):
        raise UsageError(
            f"processes of two runs have met: process 0 trains {runs[0][0]}, process {other} trains {runs[other][0]}. "
            "Start both again, each with a MASTER_PORT of its own (torchrun: --master-port), and one command for all "
            "processes of a run."
        )


def _first_other(found: Sequence[Any]) -> int | None:
    """The first process that has found something else than process 0; None where there is none."""
    return next((rank for rank, mine in enumerate(found) if mine != found[0]), None)


def require_same_data(world: World, facts: dict[str, Any]) -> None:
    """Raises DataError, in every process, where machines have other data under the same names: each would see another
    stream. ``facts`` are the metadata of the run's checkpoints."""
    if other := _first_other(world.gather_objects([facts.get(key) for key in ("data_fingerprint", "data")])):
        raise DataError(
            f"data: process {other} of {world.size} finds other samples than process 0. Put the same files on all "
            "machines, or on a disk that they share."
        )


@contextmanager
def _one_fate(world: World) -> Iterator[None]:
    """When a process has ended, the others notice by a connection that is closed, which is no bug of theirs."""
    try:
        yield
    except RuntimeError as error:  # torch.distributed has no narrower class for what gloo reports
        if world.size > 1 and ("gloo" in str(error).lower() or isinstance(error, torch.distributed.DistError)):
            raise MeasureError(f"process {world.rank}: another process of this run has ended, and says why.") from error
        raise


@contextmanager
def _claimed(out: Path, world: World) -> Iterator[None]:
    """Rank 0 holds the run's folder; if it cannot, every rank raises its error."""
    with ExitStack() as stack:
        error: ClipevalError | None = None
        if world.is_main:
            try:
                stack.enter_context(checkpoint.claimed(out))
            except ClipevalError as found:
                error = found
        if error := world.broadcast(error):
            raise error
        yield

"""Several processes that meet over a file, for tests of what they compute together."""

from __future__ import annotations

import multiprocessing
import warnings
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from clipeval_train.distributed import World

multiprocessing.set_forkserver_preload(["open_clip", "clipeval_train.step"])  # imported once, not once per process


def in_processes(size: int, folder: Path, work: Callable[[World, Any], Any], argument: Any = None) -> list[Any]:
    """``work(world, argument)`` in ``size`` processes at once: what each returns, in the order of ranks.

    ``work`` is a function of a module. A warning in a process is an error there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    mp.start_processes(_process, (size, folder, work, argument), nprocs=size, start_method="forkserver")
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(size)]


def one() -> World:
    """The world of a single process."""
    return World(0, 1, 0, torch.device("cpu"))


def _process(rank: int, size: int, folder: Path, work: Callable[[World, Any], Any], argument: Any) -> None:
    warnings.simplefilter("error")
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=size, timeout=timedelta(minutes=1)
    )
    try:
        torch.save(work(World(rank, size, rank, torch.device("cpu")), argument), folder / f"{rank}.pt")
    finally:
        dist.destroy_process_group()

"""The processes that train together, and what they tell each other."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist

from clipeval.errors import UsageError
from clipeval.machine import resolve_device

T = TypeVar("T")
Number = TypeVar("Number", float, torch.Tensor)

TIMEOUT = timedelta(minutes=30)
"""How long a process waits for the others; longer than reading a checkpoint or opening a remote data set takes."""


@dataclass(frozen=True)
class World:
    """One process's place: ``rank`` of ``size``, ``local_rank`` on its machine, and its device.

    The methods are collective: every process calls them in the same order. With a size of 1 they cost nothing. Numbers
    and Python objects travel between CPUs, so they do not wait for a GPU; tensors travel between their own devices.
    """

    rank: int
    size: int
    local_rank: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """True in the one process that writes files and talks to the user."""
        return self.rank == 0

    def all_true(self, flag: bool) -> bool:
        """Whether ``flag`` is true in every process."""
        return self.sum(float(not flag)) == 0

    def sum(self, value: Number) -> Number:
        """The sum over processes: a float of a float, a new tensor of a tensor."""
        return self._reduce(value, dist.ReduceOp.SUM)

    def mean(self, value: Number) -> Number:
        """The mean over processes: a float of a float, a new tensor of a tensor."""
        return self.sum(value) / self.size

    def max(self, value: Number) -> Number:
        """The (elementwise) maximum over processes: a float of a float, a new tensor of a tensor."""
        return self._reduce(value, dist.ReduceOp.MAX)

    def broadcast(self, value: T) -> T:
        """Process 0's ``value``, which can be pickled."""
        if self.size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0)
        return values[0]

    def gather_objects(self, value: T) -> list[T]:
        """Every process's ``value``, which can be pickled, in the order of ranks."""
        values = [value] * self.size
        if self.size > 1:
            dist.all_gather_object(values, value)
        return values

    def barrier(self) -> None:
        """Wait until every process is here."""
        self.sum(0.0)

    def all_gather(self, tensor: torch.Tensor) -> torch.Tensor:
        """``[n, ...]`` of equal shape in every process -> ``[size * n, ...]`` in the order of ranks."""
        if self.size == 1:
            return tensor
        gathered = tensor.new_empty(self.size * len(tensor), *tensor.shape[1:])
        dist.all_gather_into_tensor(gathered, tensor.contiguous())
        return gathered

    def reduce_scatter(self, tensor: torch.Tensor) -> torch.Tensor:
        """``[size * n, ...]`` -> ``[n, ...]``: this rank's rows of the sum over processes."""
        if self.size == 1:
            return tensor
        rows = tensor.new_empty(len(tensor) // self.size, *tensor.shape[1:])
        dist.reduce_scatter_tensor(rows, tensor.contiguous())
        return rows

    def _reduce(self, value: Number, operation: dist.ReduceOp.RedOpType) -> Number:
        if self.size == 1:
            return value
        if isinstance(value, torch.Tensor):
            reduced = value.detach().clone()
            dist.all_reduce(reduced, operation)
            return reduced
        number = torch.tensor(value, dtype=torch.float64)
        dist.all_reduce(number, operation)
        return number.item()


@contextmanager
def open_world(device: str = "auto") -> Iterator[World]:
    """This process's World while the block runs, as ``torchrun`` or Slurm's ``srun`` started it; else a World of one.

    ``device`` is ``auto``, ``cpu`` or ``cuda``; on ``cuda`` each process of a machine takes the GPU of its local rank.
    The process group is closed in the end, after errors too. Raises UsageError for an absent device.
    """
    rank, size, local_rank = _place(os.environ)
    name = resolve_device(device)
    if size > 1 and name == "cuda":
        name = resolve_device(f"cuda:{local_rank}")
    place = torch.device(name)
    if place.type == "cuda":
        torch.cuda.set_device(place)
    world = World(rank, size, local_rank, place)
    if size == 1:
        yield world
        return
    for key, value in _meeting_point(os.environ).items():
        os.environ.setdefault(key, value)
    backend, bound = ("cpu:gloo,cuda:nccl", place) if place.type == "cuda" else ("gloo", None)
    dist.init_process_group(backend, timeout=TIMEOUT, rank=rank, world_size=size, device_id=bound)
    try:
        yield world
    finally:
        dist.destroy_process_group()


def _place(environment: os._Environ[str] | dict[str, str]) -> tuple[int, int, int]:
    """Rank, size and local rank. Slurm's variables count only inside a step: a batch script has some of them too."""
    if "WORLD_SIZE" in environment:
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    elif "SLURM_STEP_NUM_TASKS" in environment:
        names = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID")
    else:
        return 0, 1, 0
    if missing := [name for name in names if name not in environment]:
        raise UsageError(f"environment: {names[1]} is set but {', '.join(missing)} not. Start with torchrun or srun.")
    rank, size, local_rank = (int(environment[name]) for name in names)
    return rank, size, local_rank


def _meeting_point(environment: os._Environ[str] | dict[str, str]) -> dict[str, str]:
    """MASTER_ADDR and MASTER_PORT of a Slurm step: its first machine, and a port that depends on the job."""
    if "SLURM_STEP_NODELIST" not in environment:
        return {}
    # for example node[003-006,9],other1
    prefix, bracket, rest = re.split(r"([\[,]|$)", environment["SLURM_STEP_NODELIST"], maxsplit=1)
    first = re.split(r"[-,\]]", rest)[0] if bracket == "[" else ""
    port = 20_000 + int(environment.get("SLURM_JOB_ID", "0")) % 20_000
    return {"MASTER_ADDR": prefix + first, "MASTER_PORT": str(port)}

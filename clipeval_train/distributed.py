"""The processes that train together, and what they tell each other."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from clipeval.errors import UsageError
from clipeval.machine import resolve_device

T = TypeVar("T")

TIMEOUT = timedelta(minutes=30)
"""How long a process waits for the others; longer than reading a checkpoint or opening a remote data set takes."""
PATIENCE = timedelta(days=3)
"""How long it waits where one measures data sets for all. A process that ends is noticed at once all the same."""
_STRIDE = 7919
"""Between the ports of two steps of a job: a prime, so that they are not those of the next jobs."""
_LAUNCHERS = (
    ("RANK", "WORLD_SIZE", "LOCAL_RANK"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"),
    ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"),
)
"""Rank, size and local rank as torchrun, mpirun and a step of Slurm call them. Slurm's count inside a step only: a
batch script has some of them too. They come last: mpirun reaches other nodes by a step with one task on each."""


@dataclass(frozen=True)
class World:
    """One process's place: ``rank`` of ``size``, ``local_rank`` on its machine, and its device.

    The methods are collective: every process calls them in the same order. With a size of 1 they cost nothing. Python
    objects travel between CPUs, so they do not wait for a GPU; tensors travel between their own devices.
    """

    rank: int
    size: int
    local_rank: int
    device: torch.device
    group: Any = None
    """The processes as torch calls them; None: all that there are."""
    patient: Any = None
    """The same, with more time for each other."""

    @property
    def is_main(self) -> bool:
        """True in the one process that writes files and talks to the user."""
        return self.rank == 0

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """The sum over processes."""
        return self._reduced(tensor, dist.ReduceOp.SUM)

    def mean(self, tensor: torch.Tensor) -> torch.Tensor:
        """The mean over processes."""
        return self.sum(tensor) / self.size

    def max(self, tensor: torch.Tensor) -> torch.Tensor:
        """The maximum over processes, of each element."""
        return self._reduced(tensor, dist.ReduceOp.MAX)

    def broadcast(self, value: T) -> T:
        """Process 0's ``value``, which can be pickled."""
        if self.size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0, group=self.group)
        return values[0]

    def gather_objects(self, value: T) -> list[T]:
        """Every process's ``value``, which can be pickled, in the order of ranks."""
        values = [value] * self.size
        if self.size > 1:
            dist.all_gather_object(values, value, group=self.group)
        return values

    def barrier(self) -> None:
        """Wait until every process is here, for days if need be."""
        if self.size > 1:
            dist.all_reduce(torch.zeros(()), group=self.patient or self.group)

    def all_gather(self, tensor: torch.Tensor) -> torch.Tensor:
        """``[n, ...]`` of equal shape in every process -> ``[size * n, ...]`` in the order of ranks."""
        if self.size == 1:
            return tensor
        gathered = tensor.new_empty(self.size * len(tensor), *tensor.shape[1:])
        dist.all_gather_into_tensor(gathered, tensor.contiguous(), group=self.group)
        return gathered

    def reduce_scatter(self, tensor: torch.Tensor) -> torch.Tensor:
        """``[size * n, ...]`` -> ``[n, ...]``: this rank's rows of the sum over processes."""
        if self.size == 1:
            return tensor
        rows = tensor.new_empty(len(tensor) // self.size, *tensor.shape[1:])
        dist.reduce_scatter_tensor(rows, tensor.contiguous(), group=self.group)
        return rows

    def _reduced(self, tensor: torch.Tensor, operation: dist.ReduceOp.RedOpType) -> torch.Tensor:
        if self.size == 1:
            return tensor
        reduced = tensor.detach().clone()
        dist.all_reduce(reduced, operation, group=self.group)
        return reduced


@contextmanager
def open_world(device: str = "auto") -> Iterator[World]:
    """This process's World while the block runs, as torchrun, Slurm's ``srun`` or mpirun started it; else one of one.

    ``device`` is ``auto``, ``cpu`` or ``cuda``; on ``cuda`` each process takes the GPU of its local rank, among those
    that it sees: some launchers show each process its own alone. A process group that the caller has opened (Ray Train,
    Lightning, accelerate) is used and left open; one that is opened here is closed in the end, after errors too. Raises
    UsageError for an absent device and a meeting point that is taken.
    """
    rank, size, local_rank = _place(os.environ)
    theirs = dist.is_available() and dist.is_initialized()
    if theirs:
        rank, size = dist.get_rank(), dist.get_world_size()
    place = torch.device(resolve_device(device, "device: "))
    if place.type == "cuda":  # always with an index: torch binds nothing to "the GPU"
        place = torch.device("cuda", local_rank % torch.cuda.device_count())
        torch.cuda.set_device(place)
    if size == 1:
        yield World(rank, size, local_rank, place)
        return
    backend = "cpu:gloo,cuda:nccl" if place.type == "cuda" else "gloo"
    if not theirs:
        _meet(backend, rank, size, place)
    try:
        group = dist.new_group(timeout=TIMEOUT, backend=backend) if theirs else None
        yield World(rank, size, local_rank, place, group, dist.new_group(timeout=PATIENCE, backend="gloo"))
    finally:
        if not theirs:
            dist.destroy_process_group()


def _meet(backend: str, rank: int, size: int, place: torch.device) -> None:
    for key, value in _meeting_point(os.environ).items():
        os.environ.setdefault(key, value)
    if missing := [key for key in ("MASTER_ADDR", "MASTER_PORT") if key not in os.environ]:
        raise UsageError(
            f"environment: {' and '.join(missing)}: the {size} processes need them to find each other. Start with "
            "torchrun or srun, or set them to the first machine and a free port there."
        )
    bound = place if place.type == "cuda" else None
    try:
        dist.init_process_group(backend, timeout=TIMEOUT, rank=rank, world_size=size, device_id=bound)
    except dist.DistNetworkError as error:
        if "EADDRINUSE" not in str(error):
            raise
        raise UsageError(
            f"environment: MASTER_PORT: {os.environ['MASTER_PORT']} is taken on this machine, perhaps by another run. "
            "Set another one for all processes of this run."
        ) from error


def _place(environment: os._Environ[str] | dict[str, str]) -> tuple[int, int, int]:
    """Rank, size and local rank."""
    names = next((names for names in _LAUNCHERS if names[1] in environment), None)
    if names is None:
        return 0, 1, int(environment.get("LOCAL_RANK", "0"))
    if missing := [name for name in names if name not in environment]:
        raise UsageError(f"environment: {names[1]} is set but {', '.join(missing)} not. Start with torchrun or srun.")
    rank, size, local_rank = (int(environment[name]) for name in names)
    return rank, size, local_rank


def _meeting_point(environment: os._Environ[str] | dict[str, str]) -> dict[str, str]:
    """MASTER_ADDR and MASTER_PORT of a Slurm step: its first machine, and a port that depends on job and step."""
    if "SLURM_STEP_NODELIST" not in environment:
        return {}
    # for example node[003-006,9],other1
    prefix, bracket, rest = re.split(r"([\[,]|$)", environment["SLURM_STEP_NODELIST"], maxsplit=1)
    first = re.split(r"[-,\]]", rest)[0] if bracket == "[" else ""
    job, step = (int(environment.get(key, "0")) for key in ("SLURM_JOB_ID", "SLURM_STEP_ID"))
    port = 20_000 + (job + _STRIDE * step) % 20_000
    return {"MASTER_ADDR": prefix + first, "MASTER_PORT": str(port)}

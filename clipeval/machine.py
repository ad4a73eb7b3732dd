"""What this machine offers: devices, cores, and how many threads a model of a given size should use."""

from __future__ import annotations

import gc
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clipeval import precision as precisions
from clipeval.errors import UsageError, suggest

_ONE_THREAD_BELOW_GMACS = 0.05
"""Image towers smaller than this run fastest on one intra-op thread: see bench/threads.py."""


@contextmanager
def uncollected() -> Iterator[None]:
    """Make many small objects that all live until the end: looking through them for cycles would take a third of the
    time of a table of 1,000 checkpoints. Also a decorator."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def cores() -> int:
    """CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    if not _has_nvidia_driver():
        return []
    import torch

    count = torch.cuda.device_count()
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    names = [name.strip() for name in chosen.split(",")] if chosen else [str(number) for number in range(count)]
    return names[:count]


def default_workers() -> int:
    """Image decoding processes: one per core, at most 16."""
    return min(cores(), 16)


def workers_per_rank() -> int:
    """Decoding processes for each of the ranks that train on this machine: what cores their own threads leave, at most
    16 each."""
    ranks = ranks_here()
    # Slurm may have given each task cores of its own, or all of them the same ones
    of_job = int(os.environ.get("SLURM_CPUS_ON_NODE", cores()))
    own = cores() if cores() * ranks <= of_job else min(cores(), of_job) // ranks
    return max(1, min(16, own - 1))


def ranks_here() -> int:
    """The ranks of this run on this machine, as torchrun, mpirun or Slurm tell it."""
    for name in ("LOCAL_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE"):
        if name in os.environ:
            return int(os.environ[name])
    counts = [  # 4(x2),3: four on each of the first two nodes, three on the next one
        int(count)
        for count, repeats in re.findall(r"(\d+)(?:\(x(\d+)\))?", os.environ.get("SLURM_STEP_TASKS_PER_NODE", "1"))
        for _ in range(int(repeats or 1))
    ]
    return counts[min(int(os.environ.get("SLURM_NODEID", "0")), len(counts) - 1)]


def resolve_device(name: str, option: str = "--device ") -> str:
    """``auto`` becomes ``cuda`` where there is a GPU and ``cpu`` elsewhere.

    Raises UsageError for an absent device; ``option`` is what stands in front of its name there.
    """
    if name == "cpu" or (name == "auto" and not _has_nvidia_driver()):
        return "cpu"
    import torch

    available = torch.cuda.is_available()
    if name == "auto":
        return "cuda" if available else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"{option}{name}: no such device.{suggest(name, ['cpu', 'cuda', 'auto'])}") from None
    if device.type not in ("cpu", "cuda"):
        raise UsageError(f"{option}{name}: only cpu and cuda are supported. Use {option}cpu.")
    if device.type == "cuda" and (not available or (device.index or 0) >= torch.cuda.device_count()):
        raise UsageError(f"{option}{name}: this machine has no such GPU that PyTorch can use. Use {option}cpu.")
    return name


def check_device(device: str, precision: str) -> None:
    """Raises UsageError for a device or precision that this machine cannot do."""
    import torch

    try:
        wanted = torch.device(device)
    except RuntimeError as error:
        raise UsageError(f"device '{device}': expected cpu, cuda or cuda:N.") from error
    if wanted.type == "cuda" and (wanted.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"device '{device}': torch finds {torch.cuda.device_count()} CUDA devices here. Use another.")
    if refusal := precisions.refusal(precision, device):
        raise UsageError(f"precision {precision} {refusal}")


def _has_nvidia_driver() -> bool:
    """A cheap look before the import of torch, which takes seconds."""
    return Path("/dev/nvidiactl").exists() or Path("/proc/driver/nvidia/version").exists() or os.name == "nt"


def set_threads(gmacs_image: float, most: int | None = None) -> None:
    """Choose intra-op threads for a model on the CPU, at most ``most`` (None: all cores), unless OMP_NUM_THREADS does:
    tiny layers lose more to synchronising than they gain."""
    import torch

    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1 if gmacs_image < _ONE_THREAD_BELOW_GMACS else (most or cores()))

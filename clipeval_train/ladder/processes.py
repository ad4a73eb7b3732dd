"""Work in processes of its own: forked from a server that has imported torch once, each with its share of the machine.

A process that crashes, runs out of memory or is killed takes nothing with it. When this process is killed, its children
are told to end.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from clipeval import machine
from clipeval_train.ladder import ranks


@dataclass(frozen=True)
class Slot:
    """What a process may use: threads, and GPUs as CUDA_VISIBLE_DEVICES names them, or None. It has further variables
    in its environment."""

    threads: int
    gpu: str | None
    environment: tuple[tuple[str, str], ...] = ()


def slots(jobs: int | None) -> list[Slot]:
    """The machine divided among ``jobs`` processes. None: one per GPU; without a GPU as many as its cores carry with
    OMP_NUM_THREADS threads each, 1 unless that is set: for small models more processes beat more threads."""
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]  # of nested teams, whose numbers OpenMP takes as a list
    threads = max(1, int(first)) if first.isdecimal() else 1
    if not (gpus := machine.gpus()):
        return [Slot(threads, None)] * (jobs or max(1, machine.cores() // threads))
    return [Slot(threads, gpus[index % len(gpus)]) for index in range(jobs or len(gpus))]


def together(slots: Sequence[Slot]) -> list[Slot]:
    """The same for processes that train together: they know of each other, and each sees the GPUs of all."""
    if len(slots) == 1:
        return list(slots)
    gpus = None if slots[0].gpu is None else ",".join(str(slot.gpu) for slot in slots)
    port = ranks.free_port("127.0.0.1")
    return [
        Slot(slot.threads, gpus, tuple(ranks.variables(rank, rank, len(slots), len(slots), "127.0.0.1", port).items()))
        for rank, slot in enumerate(slots)
    ]


def start(function: Callable[..., None], arguments: tuple[Any, ...], slot: Slot, log: Path) -> BaseProcess:
    """Call ``function`` in a new process; what it prints is appended to the file ``log``."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["clipeval_train.loop"])
    process = context.Process(target=_child, args=(function, arguments, slot, str(log)))
    process.start()
    return process


def call(function: Callable[..., None], arguments: tuple[Any, ...], slot: Slot, log: Path) -> int:
    """Like ``start``, and wait for the end. Returns the exit code, negative for a signal."""
    process = start(function, arguments, slot, log)
    try:
        process.join()
    finally:
        stop([process])
    return process.exitcode or 0


def stop(processes: list[BaseProcess], seconds: float | None = None) -> None:
    """Tell processes to end and wait until they have; an interrupt while waiting, or ``seconds``, ends them at once."""
    try:
        for process in processes:
            process.terminate()
        for process in processes:
            process.join(seconds)
    finally:
        for process in processes:
            process.kill()


def _child(function: Callable[..., None], arguments: tuple[Any, ...], slot: Slot, log: str) -> None:
    os.setpgid(0, 0)  # Ctrl-C reaches the parent alone, which passes it on once
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (1, 2):
        os.dup2(output, stream)
    _end_with_parent()
    os.environ["OMP_NUM_THREADS"] = str(slot.threads)
    if slot.gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = slot.gpu
    os.environ |= dict(slot.environment)
    import torch

    torch.set_num_threads(slot.threads)
    function(*arguments)
    sys.stdout.flush()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    sentinel = parent.sentinel

    def watch() -> None:
        wait([sentinel])
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()

"""Executes a plan on the workers of a Ray cluster, one checkpoint in each at a time. This process keeps the ledger.

A worker that dies is replaced and its work done again; a checkpoint that keeps killing workers becomes failed rows.
Workers read checkpoints and data sets by the same paths as this process, from a shared file system; embeddings they
exchange there too, or through a bucket (``embeddings/bucket.py``).
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from clipeval import machine, paths
from clipeval.console import RunProgress, say
from clipeval.datasets.base import Dataset
from clipeval.errors import ClipevalError, MeasureError, ModelError, UsageError
from clipeval.evaluation.cell import Cell
from clipeval.evaluation.failures import OutOfMemory
from clipeval.evaluation.interrupt import look
from clipeval.evaluation.journal import Journal
from clipeval.evaluation.plan import Plan
from clipeval.evaluation.request import Options
from clipeval.evaluation.schedule import MOST_CRASHES, Schedule, Unit
from clipeval.evaluation.workbench import Measured, Workbench, scored_samples

_SECONDS_TO_START = 300.0


@contextmanager
def cluster(address: str | None) -> Iterator[None]:
    """A connection to the cluster at ``address`` or ``$RAY_ADDRESS``; without either, a Ray of this machine alone.

    Raises UsageError when ray is not installed, MeasureError when the cluster does not answer.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise UsageError("a Ray cluster is asked for and ray is not installed: pip install 'clipeval[ray]'") from error
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    on_terminate = signal.getsignal(signal.SIGTERM)
    try:
        _require_listener(address)
        ray.init(address=address, log_to_driver=False, include_dashboard=False, logging_level=logging.ERROR)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, on_terminate)  # Ray puts its own in place
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise MeasureError(
            f"--ray-address {address}: cannot join this Ray cluster: {reason} Is it running, and reachable from here?"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _require_listener(address: str) -> None:
    """Raises OSError when nothing listens at HOST:PORT: Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=10).close()


class RayWorker:
    """A process of the cluster. Errors are returned, not raised, so that they arrive as they are."""

    def __init__(self, options: Options, folder: str, own_threads: bool) -> None:
        """Relative paths start at ``folder``; ``own_threads`` says that the user has chosen OMP_NUM_THREADS."""
        os.chdir(folder)
        if not own_threads:  # Ray has set it to the worker's cores
            os.environ.pop("OMP_NUM_THREADS", None)
        options = replace(options, device=machine.resolve_device(options.device))
        self._bench = Workbench(options, RunProgress(0, quiet=True), threads=options.decoders + 1)

    def host(self) -> str:
        """Answers when the worker has started."""
        return socket.gethostname()

    def work(self, unit: Unit) -> Measured | ClipevalError | None:
        """Do a unit; None where there is nothing to hand back."""
        try:
            if unit.kind == "texts":  # of all data sets: one that is wrong here fails in its own cells only
                self._bench.take(unit.cells)
                return None
            (cell,) = unit.cells
            if unit.kind == "cell":
                return self._bench.measure(cell)
            self._bench.require_same_data(cell)
            self._bench.embed(cell, unit.start, unit.stop)
        except ClipevalError as error:
            return error
        return None


@dataclass
class _Seat:
    """A worker as this process sees it: the unit it is at, and the checkpoint it has loaded."""

    actor: Any
    unit: Unit | None = None
    held: str | None = None


class RayExecutor:
    """Measures cells on the connected cluster (``cluster``) and hands everything to ``journal``."""

    def __init__(self, plan: Plan, journal: Journal) -> None:
        self._plan, self._journal, options = plan, journal, plan.request.options
        self._resources, self._workers = _shares(options)
        decoders = max(int(self._resources["num_cpus"]) - 1, 0)
        self._options = replace(options, workers=decoders, out=options.out.absolute())
        self._idle: list[_Seat] = []
        self._failed_starts = 0
        self._pending: dict[Any, _Seat] = {}

    def execute(self, cells: list[Cell]) -> None:
        """Measure every cell. Only KeyboardInterrupt and a full disk here stop the run early.

        Raises MeasureError when no worker starts.
        """
        import ray

        splits = self._plan.splits()
        opened = {cell: splits[cell.dataset, cell.entry.split] for cell in cells}
        scored = {cell.dataset: scored_samples(dataset, cell.limit) for cell, dataset in opened.items()}
        sizes = {dataset: len(samples) for dataset, samples in scored.items()}
        schedule = Schedule(cells, sizes, self._options.batch_size)
        for _ in range(min(self._workers, schedule.widest)):
            self._hire()
        while schedule.unfinished:
            look()
            self._hand_out(schedule)
            ended, _ = ray.wait(list(self._pending), num_returns=1, timeout=_SECONDS_TO_START)
            if not ended and not self._idle and not any(seat.unit for seat in self._pending.values()):
                raise MeasureError(
                    f"no Ray worker started in {_SECONDS_TO_START:.0f} s: each asks for {self._resources}, and free "
                    f"are {ray.available_resources()}. Give fewer --workers, or free the cluster."
                )
            for reference in ended:
                seat = self._pending.pop(reference)
                try:
                    answer = ray.get(reference)
                except ray.exceptions.RayError as error:
                    self._replace(seat, schedule, error)
                    continue
                if isinstance(answer, OutOfMemory):
                    ray.kill(seat.actor)
                    self._replace(seat, schedule, answer)
                else:
                    self._receive(seat, answer, schedule, scored)

    def _hire(self) -> None:
        """Ask for a new worker; it is given work once it has answered."""
        import ray

        names = ("HF_ENDPOINT", "HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "OMP_NUM_THREADS", "CLIPEVAL_STORE")
        environment = {name: os.environ[name] for name in names if name in os.environ}
        environment["CLIPEVAL_CACHE"] = str(paths.cache_dir().absolute())
        worker: Any = ray.remote(RayWorker).options(
            max_restarts=0, runtime_env={"env_vars": environment}, **self._resources
        )
        actor: Any = worker.remote(self._options, str(Path.cwd()), "OMP_NUM_THREADS" in os.environ)
        self._pending[actor.host.remote()] = _Seat(actor)

    def _hand_out(self, schedule: Schedule) -> None:
        for seat in list(self._idle):
            others = [other.held for other in (*self._idle, *self._pending.values()) if other is not seat]
            unit = schedule.next(seat.held, others)
            if unit is not None:
                self._idle.remove(seat)
                seat.unit, seat.held = unit, unit.model
                self._pending[seat.actor.work.remote(unit)] = seat

    def _receive(
        self, seat: _Seat, answer: Measured | ClipevalError | str | None, schedule: Schedule, scored: dict[str, Dataset]
    ) -> None:
        unit, seat.unit = seat.unit, None
        self._idle.append(seat)
        if unit is None:  # the worker has started
            return
        schedule.done(unit)
        if isinstance(answer, Measured):
            self._journal.finish(unit.cells[0], scored[unit.cells[0].dataset], answer)
        elif isinstance(answer, ClipevalError) and unit.kind != "images":  # the cell meets the error of images again
            for cell in schedule.give_up(unit.model) if unit.kind == "texts" else unit.cells:
                self._journal.fail(cell, answer)

    def _replace(self, seat: _Seat, schedule: Schedule, error: Exception) -> None:
        """A worker is lost: its work goes to others, and a new worker takes its place."""
        reason = str(error).strip().splitlines()[0]
        if seat.unit is None:
            self._failed_starts += 1
            if self._failed_starts >= MOST_CRASHES:
                raise MeasureError(
                    f"Ray workers die before they start: {reason} Is clipeval installed on all machines?"
                )
        else:
            say(f"{seat.unit.label}: a worker died: {reason}")
            for cell in schedule.crashed(seat.unit):
                message = f"{MOST_CRASHES} workers died at {seat.held}, the last one at: {seat.unit.label}: {reason}"
                self._journal.fail(cell, ModelError(message))
        self._hire()


def _shares(options: Options) -> tuple[dict[str, float], int]:
    """What each worker asks of the cluster, and how many workers: one per GPU, without GPUs one per core."""
    import ray

    cluster = ray.cluster_resources()
    cores, gpus = cluster.get("CPU", 1.0), cluster.get("GPU", 0.0)
    on_gpu = options.device == "cuda" or (options.device == "auto" and gpus > 0)
    workers = options.workers or int(gpus if on_gpu else cores) or 1
    per_worker = cores / workers
    shares = {"num_cpus": float(int(per_worker)) if per_worker >= 1 else per_worker}
    return shares | ({"num_gpus": min(1.0, gpus / workers)} if on_gpu else {}), workers

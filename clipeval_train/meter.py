"""What training costs: rates, utilisation, memory, hours and energy."""

from __future__ import annotations

import resource
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from clipeval_train.distributed import World

_PEAK_TFLOPS = {
    "B200": 2250.0,
    "H200": 989.4,
    "H100 PCIe": 756.5,
    "H100 NVL": 835.5,
    "H100": 989.4,
    "A100": 312.0,
    "L40S": 362.1,
    "L40": 181.0,
    "L4": 121.0,
    "V100": 125.0,
    "RTX 4090": 165.2,
    "RTX 3090": 71.0,
}
"""Dense 16-bit matrix products with fp32 accumulation, from NVIDIA's data sheets; the first name that fits counts."""
_FLOPS_PER_MAC = 6
"""Two operations per multiply-accumulate, forward once and backward twice; recomputation does not count as useful."""


class Meter:
    """Counts on every rank, sums over all of them, and goes on from what the parts of the run before have cost."""

    def __init__(self, world: World, gmacs: float, peak_tflops: float | None, before: Mapping[str, Any]) -> None:
        """``before`` holds the ``totals`` of the checkpoint the run goes on from; ``gmacs`` are those of one pair."""
        self._world, self._before = world, before
        self._flops = _FLOPS_PER_MAC * gmacs * 1e9
        self._peak = peak_tflops or _peak_tflops(world.device)
        self._energy = _EnergyCounter(world.device)
        self._bad: Counter[str] = Counter()
        self._started = time.monotonic()
        self._paused, self._all_samples = 0.0, 0
        self._begin_interval()

    def _begin_interval(self) -> None:
        self._since, self._waited, self._samples, self._loss_sum = time.monotonic(), 0.0, 0, 0.0

    def batch(self, waited: float, bad: Mapping[str, int]) -> None:
        """This rank has its next batch: after a wait of some seconds, and with samples left out for these reasons."""
        self._waited += waited
        self._bad.update(bad)

    def step(self, samples: int, loss: float) -> None:
        """All ranks together are done with a batch."""
        self._samples += samples
        self._all_samples += samples
        self._loss_sum += loss * samples

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What happens inside, a save or an evaluation, costs time and is no part of the rates."""
        began = time.monotonic()
        yield
        spent = time.monotonic() - began
        self._since, self._paused = self._since + spent, self._paused + spent

    @property
    def rate(self) -> float:
        """Samples per second since this process began to train."""
        return self._all_samples / max(time.monotonic() - self._started - self._paused, 1e-9)

    def interval(self) -> dict[str, float | None]:
        """Mean loss and rates since the last call. All ranks must call it.

        ``mfu`` is useful floating point operations over what the devices could do at best; None where that is unknown.
        ``data_wait`` is the share of the time that ranks waited for data, ``memory_gb`` the highest peak of a rank.
        """
        seconds = max(time.monotonic() - self._since, 1e-9)
        ranks = self._world.gather_objects((self._waited / seconds, _peak_memory(self._world.device)))
        rate = self._samples / seconds
        possible = self._peak * 1e12 * self._world.size if self._peak else None
        values = {
            "loss": self._loss_sum / max(self._samples, 1),
            "samples_per_second": rate,
            "mfu": rate * self._flops / possible if possible else None,
            "data_wait": sum(wait for wait, _ in ranks) / len(ranks),
            "memory_gb": max(memory for _, memory in ranks),
        }
        self._begin_interval()
        return values

    def totals(self) -> dict[str, Any]:
        """What the whole run has cost so far, over all ranks and restarts. All ranks must call it."""
        ranks = self._world.gather_objects((self._energy.kwh(), dict(self._bad)))
        seconds = time.monotonic() - self._started
        bad = Counter(self._before.get("bad_samples") or {})
        for _, reasons in ranks:
            bad.update(reasons)
        on_gpu = self._world.device.type == "cuda"
        energy = [kwh for kwh, _ in ranks if kwh is not None]
        return {
            "seconds": self._sum("seconds", seconds),
            "gpu_hours": self._sum("gpu_hours", seconds / 3600 * self._world.size if on_gpu else None),
            "energy_kwh": self._sum("energy_kwh", sum(energy) if len(energy) == self._world.size else None),
            "bad_samples": dict(sorted(bad.items())),
        }

    def _sum(self, key: str, fresh: float | None) -> float | None:
        """None once any part of the run is unknown."""
        before = self._before.get(key, 0.0)
        return None if fresh is None or before is None else before + fresh


class _EnergyCounter:
    """Energy that this rank's GPU has drawn, by NVML's own counter; None without one."""

    def __init__(self, device: torch.device) -> None:
        self._handle = None
        if device.type == "cuda":
            try:
                import pynvml

                pynvml.nvmlInit()
                uuid = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
                self._handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
                self._read = pynvml.nvmlDeviceGetTotalEnergyConsumption
                self._start = self._read(self._handle)
            except Exception:  # pynvml is optional, and its errors for old drivers and slices of a GPU are many
                self._handle = None

    def kwh(self) -> float | None:
        return None if self._handle is None else (self._read(self._handle) - self._start) / 3.6e9  # from millijoules


def _peak_tflops(device: torch.device) -> float | None:
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in _PEAK_TFLOPS.items() if part in name), None)


def _peak_memory(device: torch.device) -> float:
    """In GB: of the GPU's allocator, or of the process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9

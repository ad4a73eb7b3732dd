"""Copies between host and device beside what the device computes. On a CPU there is nothing to copy."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def sent(tensor: torch.Tensor, device: str) -> torch.Tensor:
    """``tensor`` on ``device``. To a GPU it is copied on a stream of its own, so that it does not queue behind what is
    being computed; what is asked of the device from here on waits for it."""
    import torch

    if not device.startswith("cuda") or tensor.is_cuda:
        return tensor.to(device)
    main = torch.cuda.current_stream(device)
    side = _side(main.device_index)
    with torch.cuda.stream(side):
        copy = tensor.pin_memory().to(device, non_blocking=True)  # pinned: else the copy waits for all that is queued
    main.wait_stream(side)
    copy.record_stream(main)  # its memory is not used again before `main` has read it
    return copy


def received(tensor: torch.Tensor) -> Callable[[], np.ndarray]:
    """Begin to copy ``tensor`` to the host, behind what computes it and before what is asked of the device later. The
    function that is given back waits for that copy alone."""
    import torch

    if not tensor.is_cuda:
        return tensor.numpy
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    host.copy_(tensor, non_blocking=True)
    copied = torch.cuda.Event()
    copied.record(torch.cuda.current_stream(tensor.device))

    def wait() -> np.ndarray:
        copied.synchronize()
        return host.numpy()

    return wait


@cache
def _side(device_index: int) -> torch.cuda.Stream:
    import torch

    return torch.cuda.Stream(device_index)

"""A model and its weights in the memory of one of them: parameters take none until they are given a file's."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

_DONT_NEED = 4
"""MADV_DONTNEED of madvise(2): of a private mapping that nobody wrote to, pages are read again when they are needed."""
_BLOCK = 1 << 22
"""Numbers that are copied at once."""


@contextmanager
def without_storage() -> Iterator[None]:
    """Inside, parameters of new modules take no memory, and are not drawn at random. Buffers do: files need not have
    them."""
    register = torch.nn.Module.register_parameter

    def registered(module: Any, name: str, parameter: Any) -> None:
        if parameter is not None:
            parameter = torch.nn.Parameter(parameter.to("meta"), parameter.requires_grad)
        register(module, name, parameter)

    torch.nn.Module.register_parameter = registered  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        torch.nn.Module.register_parameter = register  # type: ignore[method-assign]


def own_copies(tensors: dict[str, torch.Tensor], path: Path) -> dict[str, torch.Tensor]:
    """The tensors in memory of their own, floats in fp32, one after another: pages of the mapped file at ``path`` that
    have been copied are given back, and what is written to it later changes nothing."""
    ranges = _mapped(path)
    return {name: _own_copy(tensor, ranges) for name, tensor in tensors.items()}


def _own_copy(tensor: torch.Tensor, ranges: Sequence[tuple[int, int]]) -> torch.Tensor:
    copied = torch.empty(tensor.shape, dtype=torch.float32 if tensor.is_floating_point() else tensor.dtype)
    whole = tensor.is_contiguous() and tensor.device.type == "cpu"
    rows, into = (tensor.view(-1), copied.view(-1)) if whole else (tensor, copied)
    for part, place in zip(rows.split(_BLOCK), into.split(_BLOCK), strict=True) if whole else [(rows, into)]:
        place.copy_(part)
        start = part.data_ptr() if whole else 0
        stop = start + part.numel() * part.element_size()
        if any(low <= start < stop <= high for low, high in ranges):
            _give_back(start, stop)
    return copied


def _mapped(path: Path) -> list[tuple[int, int]]:
    """Where in this process's memory a file is mapped, as far as the system tells."""
    found = []
    with suppress(OSError, ValueError):
        name = str(path.resolve())
        for line in Path("/proc/self/maps").read_text("utf-8", "surrogateescape").splitlines():
            addresses, _, rest = line.partition(" ")
            if rest.endswith(name):
                low, _, high = addresses.partition("-")
                found.append((int(low, 16), int(high, 16)))
    return found


def _give_back(start: int, stop: int) -> None:
    """Whole pages only. They are of a file, and private, so whoever shares them reads them again."""
    size = mmap.PAGESIZE
    first, last = -(-start // size) * size, stop // size * size
    if last > first:
        ctypes.CDLL(None).madvise(ctypes.c_void_p(first), ctypes.c_size_t(last - first), _DONT_NEED)

"""What samples go through: towers in their precision, compiled or not, in step with those of the other processes."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from clipeval.console import say
from clipeval.errors import UsageError
from clipeval.precision import autocast_dtype
from clipeval_train.distributed import World

_COMPILED_VARIANTS = 32
"""One block's code serves both towers, with and without gradient, at full and last batches; torch stops at 8 kinds."""

_ROWS_OF_BLOCKS = ("resblocks", "blocks")
"""What a row of transformer blocks is called, in open_clip and in timm."""

_FORWARD_SYNC = next(
    name
    for name in ("forward_sync_buffers", "broadcast_buffers")  # torch from 2.15 on, and before
    if name in inspect.signature(DistributedDataParallel).parameters
)


RandomState = tuple[torch.Tensor, torch.Tensor | None]


class Towers(nn.Module):
    """A model in one forward pass, so that one wrapper sees every parameter used."""

    def __init__(
        self, clip: Any, precision: str, device: torch.device, normalise: tuple[Sequence[float], Sequence[float]] | None
    ) -> None:
        """Images are normalised by mean and standard deviation, of values from 0 to 1, where ``normalise`` gives
        them."""
        super().__init__()
        self.clip = clip
        self._device, self._autocast = device, autocast_dtype(precision)
        self._mean_and_std = None
        if normalise is not None:
            self._mean_and_std = (255 * torch.tensor(normalise, device=device)).view(2, 1, 3, 1, 1).unbind()

    def normalised(self, images: torch.Tensor) -> torch.Tensor:
        """``images`` with values to 255 as the model takes them."""
        if self._mean_and_std is None:
            return images
        mean, std = self._mean_and_std
        return (images - mean) / std

    def autocast(self) -> AbstractContextManager[None]:
        """Inside, the model computes in its precision."""
        return torch.autocast(self._device.type, self._autocast, enabled=self._autocast is not None)


def synchronised(towers: nn.Module, world: World, micro_batch: int | None, all_used: bool = True) -> nn.Module:
    """The towers, their gradients averaged over all processes with the last of the micro-batches (``averaging``).
    ``all_used``: every parameter is, in each pass."""
    if world.size == 1:
        return towers
    of_this_torch: Any = {_FORWARD_SYNC: False}  # buffers are attention masks, equal everywhere
    return DistributedDataParallel(
        towers,
        process_group=world.group,
        gradient_as_bucket_view=True,
        **of_this_torch,
        find_unused_parameters=not all_used,
        static_graph=all_used and micro_batch is None,  # fails together with no_sync
    )


def averaging(towers: nn.Module, now: bool) -> AbstractContextManager[None]:
    """Inside, gradients are averaged over the processes, or, if not ``now``, added up in this one."""
    return towers.no_sync() if isinstance(towers, DistributedDataParallel) and not now else nullcontext()


def random_state(device: torch.device) -> RandomState:
    """Of both generators: patch dropout draws on the CPU, dropout on the device."""
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def set_random_state(state: RandomState, device: torch.device) -> None:
    """Draw on from there."""
    cpu, gpu = state
    torch.set_rng_state(cpu)
    if gpu is not None and device.type == "cuda":
        torch.cuda.set_rng_state(gpu, device)


def scaled(loss: torch.Tensor, scaler: torch.amp.GradScaler | None) -> torch.Tensor:
    """The loss times the factor that keeps gradients in the range of fp16."""
    return loss if scaler is None else scaler.scale(loss)


def compile_blocks(clip: nn.Module, is_main: bool) -> None:
    """Compile each transformer block in place, and say how many of which tower: one compilation serves all, keys stay,
    and gradients still leave block by block for the other processes. Raises UsageError for a model without any."""
    rows = ((name, row) for name, row in clip.named_modules() if isinstance(row, nn.ModuleList | nn.Sequential))
    found = {name: list(row) for name, row in rows if name.split(".")[-1] in _ROWS_OF_BLOCKS}
    blocks = [block for row in found.values() for block in row]
    if not blocks:
        raise UsageError("compile: this model has no transformer blocks of open_clip or timm. Leave compile out.")
    if is_main:
        say(f"compile: {', '.join(f'{len(row)} blocks of {name}' for name, row in found.items())}.")
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _COMPILED_VARIANTS)
    for block in blocks:
        block.compile()


@contextmanager
def compiler_errors_explained() -> Iterator[None]:
    """A compiler that fails inside is no bug here. Raises UsageError."""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, torch._dynamo.exc.TorchDynamoException):
            raise
        reason = " ".join(str(error).strip().split("\n\n")[0].split())
        raise UsageError(f"compile: torch.compile does not work here: {reason}. Leave compile out.") from error

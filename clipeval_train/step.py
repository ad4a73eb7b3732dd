"""The gradient of a contrastive loss over the batch of all processes, whatever the micro-batches."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import open_clip
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from clipeval.console import say
from clipeval.errors import UsageError
from clipeval.models.library import trimmable_tower
from clipeval.precision import autocast_dtype
from clipeval_train.distributed import World
from clipeval_train.loss import TILE, contrastive

_COMPILED_LENGTHS = 8
"""Compiled towers see text lengths in multiples of this, so that few shapes occur."""
_COMPILED_VARIANTS = 32
"""One block's code serves both towers, with and without gradient, at full and last batches; torch stops at 8 kinds."""

_ROWS_OF_BLOCKS = ("resblocks", "blocks")
"""What a row of transformer blocks is called, in open_clip and in timm."""

Outputs = tuple[torch.Tensor, ...]
"""Image features, text features, logit scale (already exp), and the logit bias of models that have one."""


class ContrastiveStep:
    """Computes gradients: those of N processes with k micro-batches are those of one process with the whole batch.

    ``clip`` is open_clip's CLIP or CustomTextCLIP on the world's device; it stays bare (``module``), so its state dict
    has open_clip's keys. ``loss`` is ``clip`` or ``siglip``; ``precision`` (``fp32``, ``bf16``, ``fp16``) is that of
    the towers under autocast, the loss is in fp32. With ``micro_batch`` samples at a time through the towers, features
    are computed twice: first all of them without a graph, for the loss and its gradient by each feature, then again
    with a graph, with the same dropout masks, to carry that gradient on to the weights (GradCache, Gao et al. 2021,
    arXiv 2101.06983). ``tile`` is the side of the loss's tiles, ``checkpointing`` recomputes activations per block,
    ``compile`` compiles each transformer block. Raises UsageError where the model cannot be trained like this.
    """

    def __init__(
        self,
        clip: open_clip.CLIP | open_clip.CustomTextCLIP,
        world: World,
        loss: str = "clip",
        precision: str = "fp32",
        micro_batch: int | None = None,
        tile: int = TILE,
        checkpointing: bool = False,
        compile: bool = False,
    ) -> None:
        _check(clip, world, loss, micro_batch)
        self.module = clip
        self._world, self._loss, self._micro_batch, self._tile = world, loss, micro_batch, tile
        if checkpointing:
            self.module.set_grad_checkpointing(True)
        if compile:
            _compile_blocks(clip, world.is_main)
        self._towers = _Towers(clip, autocast_dtype(precision), _COMPILED_LENGTHS if compile else 1)
        self._wrapped: nn.Module = self._towers
        if world.size > 1:
            # no static_graph: it fails together with no_sync
            self._wrapped = DistributedDataParallel(self._towers, gradient_as_bucket_view=True)

    def backward(self, images: torch.Tensor, tokens: torch.Tensor, scaler: torch.amp.GradScaler | None = None) -> float:
        """Add the gradient of the global batch's mean loss to every parameter's ``grad``; returns that loss.

        ``images`` ``[n, 3, H, W]`` (normalised) and ``tokens`` ``[n, L]`` are this process's pairs, the same n in
        every process. Gradients are multiplied by the scale of ``scaler``, the returned loss is not. Collective.
        Raises UsageError when the processes hold different n.
        """
        images, tokens = images.to(self._world.device), self._towers.trim(tokens).to(self._world.device)
        with _compiler_errors_explained():
            if self._micro_batch is None or self._micro_batch >= len(images):
                loss = self._share(self._wrapped(images, tokens))
                _scaled(loss, scaler).backward()
            else:
                loss = self._in_parts(images.split(self._micro_batch), tokens.split(self._micro_batch), scaler)
        return self._world.mean(loss.item())

    def _in_parts(self, images: Outputs, tokens: Outputs, scaler: torch.amp.GradScaler | None) -> torch.Tensor:
        """The loss of all parts together; backward passes part by part. Returns this process's share."""
        states, parts = [], []
        with torch.no_grad():
            for part in zip(images, tokens, strict=True):
                states.append(_random_state(self._world.device))
                parts.append(self._towers(*part))
        features = [torch.cat(column).requires_grad_() for column in list(zip(*parts, strict=True))[:2]]
        temperature = [value.detach().requires_grad_() for value in parts[0][2:]]
        loss = self._share((*features, *temperature))
        _scaled(loss, scaler).backward()

        by_part = zip(*(_gradient(feature).split(len(images[0])) for feature in features), strict=True)
        for number, (state, gradients) in enumerate(zip(states, by_part, strict=True), start=1):
            last = number == len(parts)
            _set_random_state(state, self._world.device)
            with nullcontext() if last else self._unsynchronised():
                outputs = self._wrapped(images[number - 1], tokens[number - 1])
                if last:  # the temperature's gradient is the whole batch's already: it enters once, not once per part
                    gradients = (*gradients, *map(_gradient, temperature))
                pairs = [pair for pair in zip(outputs, gradients, strict=False) if pair[0].requires_grad]
                torch.autograd.backward([pair[0] for pair in pairs], [pair[1] for pair in pairs])
        return loss

    def _share(self, outputs: Outputs) -> torch.Tensor:
        images, texts, scale, *bias = outputs
        return contrastive(self._loss, images, texts, scale, bias[0] if bias else None, self._world, self._tile)

    def _unsynchronised(self) -> AbstractContextManager[None]:
        wrapped = self._wrapped
        return wrapped.no_sync() if isinstance(wrapped, DistributedDataParallel) else nullcontext()


class _Towers(nn.Module):
    """Both towers and the temperature in one forward pass, so that one wrapper sees every parameter used."""

    def __init__(self, clip: nn.Module, precision: torch.dtype | None, multiple: int) -> None:
        super().__init__()
        self.clip: Any = clip
        self._precision = precision
        self._multiple = multiple
        self._trimmable = trimmable_tower(clip)

    def trim(self, tokens: torch.Tensor) -> torch.Tensor:
        """``[n, L]`` cut behind the longest text where the tower reads no further, else as it is: exact.

        What a causal tower computes behind the position that it reads reaches neither features nor gradients.
        """
        if self._trimmable is None:
            return tokens
        longest = int(self._trimmable.ends(tokens).max()) + 1
        return tokens[:, : math.ceil(longest / self._multiple) * self._multiple]

    def forward(self, images: torch.Tensor, tokens: torch.Tensor) -> Outputs:
        encode_text = self._trimmable.encode if self._trimmable else self.clip.encode_text
        with torch.autocast(images.device.type, self._precision, enabled=self._precision is not None):
            outputs = self.clip.encode_image(images), encode_text(tokens), self.clip.logit_scale.exp()
        return outputs if self.clip.logit_bias is None else (*outputs, self.clip.logit_bias)


def _check(clip: nn.Module, world: World, loss: str, micro_batch: int | None) -> None:
    if loss == "siglip" and clip.logit_bias is None:
        raise UsageError(
            "loss: siglip needs a logit bias, and the model has none. Add init_logit_bias: -10 and "
            "init_logit_scale: 2.302585 (ln 10) to its configuration, the start values of arXiv 2303.15343."
        )
    if (world.size > 1 or micro_batch) and any(isinstance(module, _BatchNorm) for module in clip.modules()):
        raise UsageError(
            "model: BatchNorm's statistics are those of the samples that go through the tower together, so the "
            "gradient would depend on the number of processes and on micro_batch. Train it in one process without "
            "micro_batch, or choose an architecture without BatchNorm, such as a ViT."
        )


def _compile_blocks(clip: nn.Module, is_main: bool) -> None:
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
def _compiler_errors_explained() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, torch._dynamo.exc.TorchDynamoException):
            raise
        reason = " ".join(str(error).strip().split("\n\n")[0].split())
        raise UsageError(f"compile: torch.compile does not work here: {reason}. Leave compile out.") from error


def _gradient(leaf: torch.Tensor) -> torch.Tensor:
    assert leaf.grad is not None
    return leaf.grad


def _random_state(device: torch.device) -> Outputs:
    """Of both generators: patch dropout draws on the CPU, dropout on the device."""
    cpu = torch.get_rng_state()
    return (cpu, torch.cuda.get_rng_state(device)) if device.type == "cuda" else (cpu,)


def _set_random_state(state: Outputs, device: torch.device) -> None:
    torch.set_rng_state(state[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(state[1], device)


def _scaled(loss: torch.Tensor, scaler: torch.amp.GradScaler | None) -> torch.Tensor:
    return loss if scaler is None else scaler.scale(loss)

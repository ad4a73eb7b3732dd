"""The gradient of a contrastive loss over the batch of all processes, whatever the micro-batches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import open_clip
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from clipeval.errors import UsageError
from clipeval.models.library import trimmable_tower
from clipeval.precision import exactness
from clipeval_train import towers
from clipeval_train.distributed import World
from clipeval_train.loss import contrastive, default_tile

MAX_LOGIT_SCALE = math.log(100)
_COMPILED_LENGTHS = 8
"""Compiled towers see text lengths in multiples of this, so that few shapes occur."""
_CHUNKS, _SMALLEST_CHUNK = 8, 64
"""A batch's texts go through the tower in so many parts of similar length, where none gets smaller than this."""

Outputs = tuple[torch.Tensor, ...]
"""Image features, text features, logit scale (already exp), and the logit bias of models that have one."""
Cuts = tuple[tuple[int, int, int], ...]
"""Of a part's texts: from, to and the length that the longest of them needs."""


_Part = tuple[torch.Tensor, torch.Tensor, Cuts]


@dataclass(frozen=True)
class Texts:
    """The texts of a batch, the shortest first: each part that goes through the tower is cut behind its longest."""

    tokens: torch.Tensor
    """``[n, L]``"""
    places: torch.Tensor
    """``[n]``: image i's text is ``tokens[places[i]]``."""
    parts: tuple[Cuts, ...]
    """Of each micro-batch."""

    def to(self, device: torch.device, non_blocking: bool = False) -> Texts:
        """The same on another device."""
        tokens, places = (tensor.to(device, non_blocking=non_blocking) for tensor in (self.tokens, self.places))
        return Texts(tokens, places, self.parts)

    def record_stream(self, stream: Any) -> None:
        """As of a tensor: its memory is in use on this stream."""
        self.tokens.record_stream(stream)
        self.places.record_stream(stream)


class ContrastiveStep:
    """Computes gradients: those of N processes with k micro-batches are those of one process with the whole batch.

    ``clip`` is open_clip's CLIP or CustomTextCLIP on the world's device; it stays bare (``module``), so its state dict
    has open_clip's keys. ``loss`` is ``clip`` or ``siglip``; ``precision`` is that of the towers: ``bf16`` and ``fp16``
    under autocast, ``fp32`` as TF32 where a GPU has it; the loss is in IEEE's fp32. The gradient is cut at features:
    towers first, then the loss and its gradient by each feature, which the towers carry on to the weights. With
    ``micro_batch`` samples at a time through the towers, features are computed twice, first without a graph, then with
    one and with the same dropout masks (GradCache, Gao et al. 2021, arXiv 2101.06983). ``tile`` is the side of the
    loss's tiles, ``checkpointing`` recomputes activations per block, ``compile`` compiles each transformer block.
    Images are normalised by mean and standard deviation, of values from 0 to 1, where ``normalise`` gives them. Raises
    UsageError where the model cannot be trained like this.
    """

    def __init__(
        self,
        clip: open_clip.CLIP | open_clip.CustomTextCLIP,
        world: World,
        loss: str = "clip",
        precision: str = "fp32",
        micro_batch: int | None = None,
        tile: int | None = None,
        checkpointing: bool = False,
        compile: bool = False,
        normalise: tuple[Sequence[float], Sequence[float]] | None = None,
    ) -> None:
        _check(clip, world, loss, micro_batch)
        self.module = clip
        self._world, self._loss, self._micro_batch = world, loss, micro_batch
        self._tile = tile or default_tile(world.device)
        self._exactness = "tf32" if precision == "fp32" else "ieee"
        if checkpointing:
            self.module.set_grad_checkpointing(True)
        if compile:
            towers.compile_blocks(clip, world.is_main)
        self._multiple = _COMPILED_LENGTHS if compile else 1
        self._trimmable = trimmable_tower(clip)
        self._towers = _BothTowers(clip, self._trimmable, precision, world.device, normalise)
        self._wrapped = towers.synchronised(self._towers, world, micro_batch)

    def arrange(self, tokens: torch.Tensor) -> Texts:
        """``[n, L]`` on the CPU by length, where the tower reads no further than a text's end: exact.

        What a causal tower computes behind the position that it reads reaches neither features nor gradients.
        """
        n, size = len(tokens), min(self._micro_batch or len(tokens), len(tokens))
        if self._trimmable is None:
            lengths, order = torch.full((n,), tokens.shape[1]), torch.arange(n)
        else:
            lengths = self._trimmable.ends(tokens) + 1
            order = lengths.argsort(stable=True)
        sorted_lengths = lengths[order].tolist()
        chunk = size if self._trimmable is None or size < n else max(_SMALLEST_CHUNK, math.ceil(n / _CHUNKS))
        parts = []
        for first in range(0, n, size):
            part = min(size, n - first)
            cuts = [(begin, min(begin + chunk, part)) for begin in range(0, part, chunk)]
            parts.append(tuple((begin, end, self._padded(sorted_lengths[first + end - 1])) for begin, end in cuts))
        return Texts(tokens[order], order.argsort(), tuple(parts))

    def _padded(self, length: int) -> int:
        return math.ceil(length / self._multiple) * self._multiple

    def backward(
        self, images: torch.Tensor, tokens: torch.Tensor | Texts, scaler: torch.amp.GradScaler | None = None
    ) -> torch.Tensor:
        """Add the gradient of the global batch's mean loss to every parameter's ``grad``; returns that loss, ``[]``.

        ``images`` ``[n, 3, H, W]`` and ``tokens`` ``[n, L]`` (or as ``arrange`` gives them) are this process's pairs,
        the same n in every process. Gradients are multiplied by the scale of ``scaler``, the returned loss is not.
        Nothing here waits for the device. Collective.
        """
        parts, places = self._parts(images, tokens)
        size = len(parts[0][0])
        with towers.compiler_errors_explained(), exactness(self._exactness):
            whole = self._wrapped(*parts[0]) if len(parts) == 1 else None
            states, outputs = ([], [whole]) if whole else self._features(parts)
            columns = list(zip(*outputs, strict=True))[:2]
            leaves = [torch.cat(column).detach().requires_grad_() for column in columns]
            leaves += [value.detach().requires_grad_() for value in outputs[0][2:]]
            with exactness("ieee"):
                loss = self._share(leaves, places)
                towers.scaled(loss, scaler).backward()
            by_part = zip(*(_gradient(leaf).split(size) for leaf in leaves[:2]), strict=True)
            for number, (part, gradients) in enumerate(zip(parts, by_part, strict=True), start=1):
                last = number == len(parts)
                if states:
                    towers.set_random_state(states[number - 1], self._world.device)
                with towers.averaging(self._wrapped, last):
                    again = whole or self._wrapped(*part)
                    if last:  # the temperature's is the whole batch's already: it enters once, not once per part
                        gradients = (*gradients, *map(_gradient, leaves[2:]))
                    pairs = [pair for pair in zip(again, gradients, strict=False) if pair[0].requires_grad]
                    torch.autograd.backward([pair[0] for pair in pairs], [pair[1] for pair in pairs])
        return self._world.mean(loss.detach())

    @torch.no_grad()
    def loss(
        self, images: torch.Tensor, tokens: torch.Tensor | Texts
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The global batch's loss, ``[]``, and this process's image and text features, ``[n, d]``. Collective."""
        parts, places = self._parts(images, tokens)
        with exactness(self._exactness):
            outputs = [self._towers(*part) for part in parts]
        features = [torch.cat(column) for column in list(zip(*outputs, strict=True))[:2]]
        with exactness("ieee"):
            share = self._share([*features, *outputs[0][2:]], places)
        return self._world.mean(share), features[0], features[1][places]

    @torch.no_grad()
    def updated(self) -> torch.Tensor:
        """The inverse temperature, ``[]``, brought back into its range after a step of the optimizer: a clamp in the
        forward pass would stop its gradient at the bound."""
        self.module.logit_scale.clamp_(0, MAX_LOGIT_SCALE)
        return self.module.logit_scale.detach().exp().squeeze()

    def _parts(self, images: torch.Tensor, tokens: torch.Tensor | Texts) -> tuple[list[_Part], torch.Tensor]:
        """What the towers take at a time, on the device, and the places of the texts."""
        texts = tokens if isinstance(tokens, Texts) else self.arrange(tokens.cpu())
        images, texts = images.to(self._world.device), texts.to(self._world.device)
        size = len(images) if len(texts.parts) == 1 else self._micro_batch
        return list(zip(images.split(size), texts.tokens.split(size), texts.parts, strict=True)), texts.places

    def _features(self, parts: Sequence[_Part]) -> tuple[list[towers.RandomState], list[Outputs]]:
        """What the towers make of each part, without a graph, and the generators' states before each."""
        states, outputs = [], []
        with torch.no_grad():
            for part in parts:
                states.append(towers.random_state(self._world.device))
                outputs.append(self._towers(*part))
        return states, outputs

    def _share(self, outputs: Sequence[torch.Tensor], places: torch.Tensor) -> torch.Tensor:
        images, texts, scale, *bias = outputs
        one = bias[0] if bias else None
        return contrastive(self._loss, images, texts[places], scale, one, self._world, self._tile)


class _BothTowers(towers.Towers):
    """Both towers and the temperature."""

    def __init__(self, clip: Any, trimmable: Any, *settings: Any) -> None:
        super().__init__(clip, *settings)
        self._encode_text = trimmable.encode if trimmable else clip.encode_text

    def forward(self, images: torch.Tensor, tokens: torch.Tensor, cuts: Cuts) -> Outputs:
        images = self.normalised(images)
        with self.autocast():
            texts = [self._encode_text(tokens[begin:end, :length]) for begin, end, length in cuts]
            outputs = self.clip.encode_image(images), torch.cat(texts), self.clip.logit_scale.exp()
        return outputs if self.clip.logit_bias is None else (*outputs, self.clip.logit_bias)


def _check(clip: nn.Module, world: World, loss: str, micro_batch: int | None) -> None:
    if loss == "siglip" and clip.logit_bias is None:
        raise UsageError(
            "loss: siglip needs a logit bias, and the model has none. Add init_logit_bias: -10 and "
            "init_logit_scale: 2.302585 (ln 10) to its configuration, the start values of arXiv 2303.15343."
        )
    if (world.size > 1 or micro_batch) and any(
        isinstance(module, _BatchNorm) and module.training for module in clip.modules()
    ):
        raise UsageError(
            "model: BatchNorm's statistics are those of the samples that go through the tower together, so the "
            "gradient would depend on the number of processes and on micro_batch. Train it in one process without "
            "micro_batch, or choose an architecture without BatchNorm, such as a ViT."
        )


def _gradient(leaf: torch.Tensor) -> torch.Tensor:
    assert leaf.grad is not None
    return leaf.grad

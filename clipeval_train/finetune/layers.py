"""What depends on the depth of a layer: learning rates and drop path."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import nn
from torchvision.ops import stochastic_depth

from clipeval.errors import UsageError
from clipeval_train import optim

_BLOCK = re.compile(r"^(?:transformer\.resblocks|trunk\.blocks)\.(\d+)(?:\.|$)")
_STEM = re.compile(
    r"^(?:trunk\.)?(?:class_embedding|positional_embedding|conv1|ln_pre|patch_embed|pos_embed|cls_token|reg_token|norm_pre)\b"
)
_BRANCH_ENDS = ("ls_1", "ls_2", "drop_path1", "drop_path2")
"""Modules of a block, of open_clip's and of timm's, that each branch passes last."""


def parameter_groups(
    tower: nn.Module, heads: Sequence[nn.Module], weight_decay: float, layer_decay: float
) -> list[dict[str, Any]]:
    """AdamW groups of all trained parameters; ``lr_scale`` is a group's share of the learning rate.

    With L blocks, block i (from 0) learns at ``layer_decay ** (L - i)`` of the rate, what comes before the blocks at
    ``layer_decay ** (L + 1)``, what comes after them and the heads at the full rate (BEiT, arXiv 2106.08254). Weight
    decay acts on matrices only. Raises UsageError for a tower without a row of transformer blocks.
    """
    depth = _depth(tower) if layer_decay < 1 else 0
    named = [(_layer(name, depth), parameter) for name, parameter in tower.named_parameters()]
    named += [(depth + 1, parameter) for head in heads for parameter in head.parameters()]
    layers: dict[int, list[nn.Parameter]] = {}
    for layer, parameter in named:
        layers.setdefault(layer, []).append(parameter)
    return [
        group | {"lr_scale": layer_decay ** (depth + 1 - layer)}
        for layer in sorted(layers)
        for group in reversed(optim.decay_groups(layers[layer], weight_decay))
        if group["params"]
    ]


def add_drop_path(tower: nn.Module, rate: float) -> None:
    """In training, skip a block's branches sample by sample (stochastic depth, arXiv 1603.09382).

    The chance rises linearly from 0 at the first block to ``rate`` at the last. State dict keys stay as they are.
    Raises UsageError for a tower without a row of transformer blocks.
    """
    depth = _depth(tower)
    for name, module in tower.named_modules():
        if (block := _BLOCK.match(name)) and name.rpartition(".")[2] in _BRANCH_ENDS:
            chance = rate * int(block[1]) / max(depth - 1, 1)
            module.register_forward_hook(partial(_drop, chance))


def _drop(chance: float, module: nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor:
    return stochastic_depth(output, chance, "row", module.training)


def _depth(tower: nn.Module) -> int:
    blocks = [int(match[1]) for name, _ in tower.named_parameters() if (match := _BLOCK.match(name))]
    if not blocks:
        raise UsageError(
            "layer_decay and drop_path count transformer blocks, and this image tower has no row of them. "
            "Leave both out for this model."
        )
    return max(blocks) + 1


def _layer(name: str, depth: int) -> int:
    if block := _BLOCK.match(name):
        return min(int(block[1]) + 1, depth + 1)
    return 0 if depth and _STEM.match(name) else depth + 1

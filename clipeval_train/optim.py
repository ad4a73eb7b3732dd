"""The optimizer and its learning rate."""

from __future__ import annotations

import math

import torch

from clipeval_train.config import PretrainConfig


def adamw(model: torch.nn.Module, config: PretrainConfig) -> torch.optim.AdamW:
    """AdamW (Loshchilov & Hutter, arXiv 1711.05101), fused: on the CPU that is several times faster than the loop.

    Weight decay acts on matrices only, not on biases, normalisation gains, the class embedding or the logit scale.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps, fused=True)


def learning_rate(clock: float, config: PretrainConfig) -> float:
    """Linear warm-up, then cosine decay to zero, at ``clock`` samples seen.

    The clock counts samples, so another batch size leaves the curve where it is. A step takes the rate at the middle
    of its batch: neither the first step nor the last is lost to a rate of zero.
    """
    if clock < config.warmup:
        return config.lr * clock / config.warmup
    progress = (clock - config.warmup) / (config.samples - config.warmup)
    return config.lr * 0.5 * (1 + math.cos(math.pi * progress))

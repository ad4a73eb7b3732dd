"""The learning rate over the samples seen, as a share of its peak."""

from __future__ import annotations

import math

from clipeval_train.config import PretrainConfig


def cosine(clock: float, total: int, warmup: int) -> float:
    """Linear warm-up, then half a cosine down to zero at ``total`` samples (Loshchilov & Hutter, arXiv 1608.03983).

    The clock counts samples, so another batch size leaves the curve where it is. A step takes the rate at the middle
    of its batch: neither the first step nor the last is lost to a rate of zero.
    """
    if clock < warmup:
        return clock / warmup
    return 0.5 * (1 + math.cos(math.pi * (clock - warmup) / (total - warmup)))


def constant(clock: float, total: int, warmup: int, cooldown: int) -> float:
    """Linear warm-up, constant, and a linear decay to zero over the last ``cooldown`` of ``total`` samples.

    Several cooldowns can branch off one constant run: each is a full training run to its number of samples at a
    fraction of the price (Zhai et al., arXiv 2106.04560, section 3.5; Hägele et al., arXiv 2405.18392).
    """
    rising = clock / warmup if clock < warmup else 1.0
    falling = (total - clock) / cooldown if clock > total - cooldown else 1.0
    return min(rising, falling)


def learning_rate(clock: float, config: PretrainConfig) -> float:
    """The configured rate at ``clock`` samples seen."""
    if config.schedule == "cosine":
        return config.lr * cosine(clock, config.samples, config.warmup_samples)
    return config.lr * constant(clock, config.samples, config.warmup_samples, config.cooldown)

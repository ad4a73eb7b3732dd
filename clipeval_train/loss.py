"""Contrastive losses over the batch of all processes, exact and in tiles.

The logits of N pairs are an N x N matrix. Each process owns the rows of its own n images and needs the texts of all
processes; only texts, their gradients and one number per column travel. The rows are worked through in tiles, and
again in the backward pass, so no process ever holds more of the matrix than one tile: memory grows with N, not with
its square. (Recomputing tiles: Cheng et al. 2024, arXiv 2410.17243.)
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable

from clipeval_train.distributed import World

TILE = 1024
"""Side of a tile: 4 MiB in fp32, which a core's cache holds in part."""
_LARGEST_TILE = 8192
_TILES_AT_ONCE, _SHARE_OF_MEMORY = 4, 16


def default_tile(device: torch.device) -> int:
    """The side of a tile: on a GPU up to 8192, where few launches fill all units, as long as the tiles that are held at
    once take no more than a sixteenth of its memory."""
    if device.type != "cuda":
        return TILE
    numbers = torch.cuda.get_device_properties(device).total_memory // (4 * _TILES_AT_ONCE * _SHARE_OF_MEMORY)
    return max(TILE, min(_LARGEST_TILE, 1 << (math.isqrt(numbers).bit_length() - 1)))


def contrastive(
    loss: str,
    images: torch.Tensor,
    texts: torch.Tensor,
    scale: torch.Tensor,
    bias: torch.Tensor | None,
    world: World,
    tile: int = TILE,
) -> torch.Tensor:
    """This process's share of the loss: the mean of the shares over processes is the loss of all pairs together.

    ``images`` and ``texts`` are embeddings ``[n, d]``, normalised here; row i of one belongs to row i of the other, and
    n is the same in every process. ``scale`` multiplies the cosines and ``bias`` is added to them. ``loss`` is ``clip``
    (symmetric InfoNCE, Radford et al. 2021, arXiv 2103.00020, figure 3; no bias moves it) or ``siglip`` (Zhai et al.
    2023, arXiv 2303.15343, algorithm 1). Gradients of embeddings are those of the *sum* of all shares, and the mean
    over processes of the gradient of ``scale``, ``bias`` or any weight is that of the loss: what
    ``DistributedDataParallel`` computes. All in fp32 (fp64 for fp64 input), also inside autocast: at scale 100, logits
    in bf16 change the gradient by percents. Collective, forward and backward.
    """
    dtype = torch.promote_types(images.dtype, torch.float32)
    if bias is None:
        bias = scale.new_zeros(())
    elif loss == "clip":  # cancels: rounding must not become a gradient, which Adam would blow up to full steps
        bias = 0 * bias
    with torch.autocast(images.device.type, enabled=False):
        images, texts = F.normalize(images.to(dtype), dim=-1), F.normalize(texts.to(dtype), dim=-1)
        scale, bias = scale.to(dtype).reshape(()), bias.to(dtype).reshape(())
        return _Tiled.apply(images, texts, scale, bias, LOSSES[loss](), world, tile)


class _Tile(NamedTuple):
    rows: slice
    columns: slice
    logits: torch.Tensor
    offset: int
    """The pairs lie on this diagonal of the tile (as in ``torch.diagonal``); mostly it is outside, and empty."""


@dataclass(frozen=True)
class _Logits:
    """This process's rows of the logits; ``images`` ``[n, d]``, ``texts`` ``[N, d]``; row 0 is pair ``first``."""

    images: torch.Tensor
    texts: torch.Tensor
    scale: torch.Tensor
    bias: torch.Tensor
    first: int
    side: int

    def tiles(self) -> Iterator[_Tile]:
        """The tiles, row by row; edge tiles are smaller."""
        for top in range(0, len(self.images), self.side):
            rows = slice(top, top + self.side)
            scaled = self.images[rows] * self.scale
            for left in range(0, len(self.texts), self.side):
                columns = slice(left, left + self.side)
                logits = torch.addmm(self.bias, scaled, self.texts[columns].T)
                yield _Tile(rows, columns, logits, self.first + top - left)


class _Loss(Protocol):
    def share(self, logits: _Logits, world: World) -> torch.Tensor:
        """This process's share."""

    def slope(self, tile: _Tile) -> torch.Tensor:
        """n times the derivative of the sum of all shares by the tile's logits. Comes after ``share``."""


class _InfoNCE:
    """-log of the softmax probability of the pair, among the row and among the column, halved."""

    def share(self, logits: _Logits, world: World) -> torch.Tensor:
        rows, columns = (
            torch.full((len(side),), -torch.inf, dtype=side.dtype, device=side.device)
            for side in (logits.images, logits.texts)
        )
        pairs = torch.empty_like(rows)
        for tile in logits.tiles():
            here = tile.logits.diagonal(tile.offset)
            begin = tile.rows.start + max(0, -tile.offset)
            pairs[begin : begin + len(here)] = here
            rows[tile.rows] = rows[tile.rows].logaddexp(tile.logits.logsumexp(1))
            columns[tile.columns] = columns[tile.columns].logaddexp(tile.logits.logsumexp(0))
        largest = world.max(columns)
        columns = largest + world.sum((columns - largest).exp()).log()
        self._rows, self._columns = rows, columns
        own = columns[logits.first : logits.first + len(rows)]
        return ((rows + own) / 2 - pairs).mean()

    def slope(self, tile: _Tile) -> torch.Tensor:
        by_row = tile.logits - self._rows[tile.rows, None]
        by_column = tile.logits.sub_(self._columns[tile.columns])
        slope = by_row.exp_().add_(by_column.exp_())
        slope.diagonal(tile.offset).sub_(2)
        return slope.div_(2)


class _Sigmoid:
    """-log sigmoid of z times the logit, z = 1 for pairs and -1 for all others."""

    def share(self, logits: _Logits, world: World) -> torch.Tensor:
        total = logits.scale.new_zeros(())
        for tile in logits.tiles():
            tile.logits.diagonal(tile.offset).neg_()
            total -= F.logsigmoid(tile.logits.neg_()).sum()
        return total / len(logits.images)

    def slope(self, tile: _Tile) -> torch.Tensor:
        pairs = -(-tile.logits.diagonal(tile.offset)).sigmoid()  # sigmoid - 1 would be rounding only, for large logits
        slope = tile.logits.sigmoid_()
        slope.diagonal(tile.offset).copy_(pairs)
        return slope


LOSSES: dict[str, type[_InfoNCE] | type[_Sigmoid]] = {"clip": _InfoNCE, "siglip": _Sigmoid}


class _Tiled(torch.autograd.Function):
    """A loss of tiles; the backward pass computes each tile again."""

    @staticmethod
    def forward(
        ctx: Any,
        images: torch.Tensor,
        texts: torch.Tensor,
        scale: torch.Tensor,
        bias: torch.Tensor,
        loss: _Loss,
        world: World,
        side: int,
    ) -> torch.Tensor:
        every_text = world.all_gather(texts)
        ctx.save_for_backward(images, every_text, scale, bias)
        ctx.loss, ctx.world, ctx.side = loss, world, side
        return loss.share(_Logits(images, every_text, scale, bias, world.rank * len(images), side), world)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        images, texts, scale, bias = ctx.saved_tensors
        to_images, to_texts, to_bias = torch.zeros_like(images), torch.zeros_like(texts), torch.zeros_like(bias)
        with torch.autocast(images.device.type, enabled=False):
            for tile in _Logits(images, texts, scale, bias, ctx.world.rank * len(images), ctx.side).tiles():
                slope = ctx.loss.slope(tile)
                to_images[tile.rows].addmm_(slope, texts[tile.columns])
                to_texts[tile.columns].addmm_(slope.T, images[tile.rows])
                if ctx.needs_input_grad[3]:
                    to_bias += slope.sum()
            factor = upstream / len(images)
            to_scale = (to_images * images).sum() * factor
            to_images.mul_(factor * scale)
            to_texts = ctx.world.reduce_scatter(to_texts.mul_(factor * scale))
        return to_images, to_texts, to_scale, to_bias * factor, None, None, None

"""The gradient of a classification loss through the image tower and one classifier per data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from clipeval.models.encoder import OpenClipEncoder
from clipeval.precision import exactness
from clipeval_train import towers
from clipeval_train.distributed import World
from clipeval_train.finetune.config import FinetuneConfig
from clipeval_train.finetune.heads import Head
from clipeval_train.finetune.layers import add_drop_path


@dataclass(frozen=True)
class Columns:
    """What images are told apart by: the column of each in the classifier of the data set whose turn it is."""

    iteration: int
    columns: torch.Tensor
    """``[n]``"""

    def to(self, device: torch.device, non_blocking: bool = False) -> Columns:
        """The same on another device."""
        return Columns(self.iteration, self.columns.to(device, non_blocking=non_blocking))

    def record_stream(self, stream: Any) -> None:
        """As of a tensor: its memory is in use on this stream."""
        self.columns.record_stream(stream)


class ClassificationStep:
    """Trains the image tower of ``encoder`` in place, with a classifier per data set on top. The data sets take turns.

    The text tower is left alone, so class names still name classes. BatchNorm keeps its statistics of pre-training:
    those of a batch would be of one data set only. Drop path is drawn by seed, iteration and process alone. Raises
    UsageError where the tower cannot be trained like this.
    """

    def __init__(self, encoder: OpenClipEncoder, heads: Sequence[Head], config: FinetuneConfig, world: World) -> None:
        tower = encoder.model.visual.requires_grad_(True)
        self.module = nn.ModuleDict({"tower": tower, "heads": nn.ModuleList(heads).to(world.device)}).train()
        for part in tower.modules():
            if isinstance(part, _BatchNorm):
                part.eval()
        if config.drop_path:
            add_drop_path(tower, config.drop_path)
        if config.activation_checkpointing:
            tower.set_grad_checkpointing(True)
        if config.compile:
            towers.compile_blocks(tower, world.is_main)
        self._config, self._world, self._heads = config, world, list(heads)
        self._exactness = "tf32" if config.precision == "tf32" else "ieee"
        mean_and_std = encoder.preprocessing.mean, encoder.preprocessing.std
        whole = _Classifying(encoder.model, self.module["heads"], config.precision, world.device, mean_and_std)
        all_used = len(self._heads) == 1 or not config.train_head
        self._wrapped = towers.synchronised(whole, world, config.micro_batch, all_used)
        self._scale = 1.0

    def arrange(self, tokens: torch.Tensor) -> Columns:
        """``[n, 2]``: iteration and column."""
        return Columns(int(tokens[0, 0]), tokens[:, 1].contiguous())

    def backward(
        self, images: torch.Tensor, tokens: Columns, scaler: torch.amp.GradScaler | None = None
    ) -> torch.Tensor:
        """``images`` are ``[n, 3, H, W]`` with values to 255."""
        config, task = self._config, tokens.iteration % len(self._heads)
        seeds = np.random.SeedSequence([config.seed, tokens.iteration, self._world.rank]).generate_state(1)
        torch.manual_seed(int(seeds[0]))
        size = config.micro_batch or len(images)
        parts = list(zip(images.split(size), tokens.columns.split(size), strict=True))
        losses = []
        with towers.compiler_errors_explained(), exactness(self._exactness):
            for number, (some, columns) in enumerate(parts, start=1):
                with towers.averaging(self._wrapped, number == len(parts)):
                    logits = self._wrapped(some, task)
                    loss = nn.functional.cross_entropy(logits, columns, label_smoothing=config.label_smoothing)
                    loss = loss * (len(some) / len(images))
                    towers.scaled(loss, scaler).backward()
                losses.append(loss.detach())
        self._scale = self._heads[task].scale
        return self._world.mean(torch.stack(losses).sum())

    def updated(self) -> torch.Tensor:
        """The factor of the logits in the classifier of the last step."""
        return torch.full((), self._scale, device=self._world.device)


class _Classifying(towers.Towers):
    """The image tower and the classifiers."""

    def __init__(self, clip: Any, heads: nn.Module, *settings: Any) -> None:
        super().__init__(clip, *settings)
        self._heads: Any = heads

    def forward(self, images: torch.Tensor, task: int) -> torch.Tensor:
        images = self.normalised(images)
        with self.autocast():
            embeddings = self.clip.encode_image(images)
        logits: torch.Tensor = self._heads[task](embeddings)
        return logits

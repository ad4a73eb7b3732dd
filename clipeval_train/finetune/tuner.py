"""One model being fine-tuned: a step on a batch, an evaluation, and the state to go on from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from clipeval.errors import MeasureError
from clipeval.models.encoder import OpenClipEncoder
from clipeval.precision import autocast_dtype
from clipeval.tasks.base import TaskResult
from clipeval_train import optim
from clipeval_train.distributed import World
from clipeval_train.ema import Ema
from clipeval_train.finetune import heads as classifiers
from clipeval_train.finetune.config import Recipe
from clipeval_train.finetune.data import LabelledSet
from clipeval_train.finetune.heads import Head
from clipeval_train.finetune.layers import add_drop_path, parameter_groups
from clipeval_train.schedule import cosine

_BETAS = (0.9, 0.999)


class Finetuner:
    """Trains the image tower of ``encoder`` in place, with one classifier per data set on top.

    The text tower is left alone, so class names still name classes. BatchNorm keeps its statistics of pre-training:
    those of a batch would be of one data set only.
    """

    def __init__(
        self,
        encoder: OpenClipEncoder,
        heads: Sequence[Head],
        recipe: Recipe,
        iterations: int,
        *,
        seed: int,
        precision: str,
        world: World,
    ) -> None:
        """Raises UsageError when the recipe does not fit the tower."""
        self.iteration = 0
        self.heads = [head.to(world.device) for head in heads]
        self._encoder, self._tower = encoder, encoder.model.visual.requires_grad_(True)
        self._recipe, self._iterations, self._seed, self._world = recipe, iterations, seed, world
        self._autocast = autocast_dtype(precision)
        if recipe.drop_path:
            add_drop_path(self._tower, recipe.drop_path)
        self._trained = nn.ModuleDict({"tower": self._tower, "heads": nn.ModuleList(self.heads)})
        groups = parameter_groups(self._tower, self.heads, recipe.weight_decay, recipe.layer_decay)
        self._optimizer = optim.adamw(groups, recipe.lr, _BETAS)
        self._scaler = torch.amp.GradScaler(world.device.type, enabled=precision == "fp16")
        self._ema = Ema(self._trained, recipe.ema) if recipe.ema else None
        numbers = torch.tensor([encoder.preprocessing.mean, encoder.preprocessing.std], device=world.device)
        self._mean, self._std = (255 * numbers).view(2, 3, 1, 1).unbind()

    @property
    def lr(self) -> float:
        """The learning rate of the iteration to come."""
        recipe, total = self._recipe, self._iterations
        falling = total - recipe.cooldown_of(total)
        share = cosine(min(self.iteration + 0.5, falling), falling, recipe.warmup_of(total))
        return recipe.min_lr + (recipe.lr - recipe.min_lr) * share

    def step(self, task: int, images: torch.Tensor, columns: torch.Tensor) -> float:
        """One optimizer step on images ``[b, 3, H, W]`` uint8 of data set ``task`` and their columns ``[b]``.

        Returns the loss, averaged over all processes. Raises MeasureError, in all of them, when it or the gradient
        is not finite.
        """
        device = self._world.device
        loss = self._loss(task, images.to(device, non_blocking=True), columns.to(device, non_blocking=True))
        mean = float(self._world.mean(loss.item()))
        if not np.isfinite(mean):
            raise self._broken("loss", mean)
        self._scaler.scale(loss).backward()
        self._average_gradients()
        norm = optim.clip_gradient(self._optimizer, self._scaler, self._recipe.grad_clip)
        if not (norm.isfinite() or self._scaler.is_enabled()):  # in fp16 an overflow only skips the step
            raise self._broken("gradient", norm.item())
        optim.set_rate(self._optimizer, self.lr)
        optim.step(self._optimizer, self._scaler, norm)
        if self._ema:
            self._ema.update(self._trained)
        self.iteration += 1
        return mean

    def _broken(self, what: str, value: float) -> MeasureError:
        return MeasureError(f"the {what} is {value} at iteration {self.iteration:,}. Lower lr, or raise warmup.")

    def _loss(self, task: int, images: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
        """The mean loss of this process's share of the batch. Drop path is drawn by the iteration alone."""
        seeds = np.random.SeedSequence([self._seed, self.iteration, self._world.rank]).generate_state(1)
        torch.manual_seed(int(seeds[0]))
        self._tower.train()
        for module in self._tower.modules():
            if isinstance(module, _BatchNorm):
                module.eval()
        with torch.autocast(self._world.device.type, self._autocast, enabled=self._autocast is not None):
            embeddings = self._encoder.model.encode_image((images - self._mean) / self._std)
        logits = self.heads[task](embeddings)
        return nn.functional.cross_entropy(logits, columns, label_smoothing=self._recipe.label_smoothing)

    def _average_gradients(self) -> None:
        if self._world.size == 1:
            return
        gradients = [p.grad for group in self._optimizer.param_groups for p in group["params"] if p.grad is not None]
        flat = self._world.mean(torch.cat([gradient.flatten() for gradient in gradients]))
        for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def evaluate(self, sets: Sequence[LabelledSet], workers: int) -> list[TaskResult]:
        """Accuracies of each data set's scored split under its classifier, the images shared out over the processes."""
        rank, size = self._world.rank, self._world.size
        results = []
        with self.averaged():
            for head, dataset in zip(self.heads, sets, strict=True):
                n = len(dataset.test)
                embeddings = np.empty((n, self._encoder.embed_dim), np.float32)
                mine = classifiers.embed(self._encoder, dataset.test, np.arange(rank, n, size), workers)
                for place, part in enumerate(self._world.gather_objects(mine)):
                    embeddings[place::size] = part
                results.append(head.score(embeddings, dataset.test))
        return results

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The weights that count, in inference mode: those of the running average where there is one."""
        self._tower.eval()
        if self._ema is None:
            yield
            return
        trained = self._weights()
        self._trained.load_state_dict(self._ema.state_dict())
        try:
            yield
        finally:
            self._trained.load_state_dict(trained)

    def _weights(self) -> dict[str, torch.Tensor]:
        return {name: tensor.clone() for name, tensor in self._trained.state_dict().items()}

    def state(self) -> dict[str, Any]:
        """What to go on from, in this process or another; the weights are copies."""
        return {
            "iteration": self.iteration,
            "trained": self._weights(),
            "ema": self._ema.state_dict() if self._ema else None,
            "optimizer": self._optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from ``state``."""
        self.iteration = state["iteration"]
        self._trained.load_state_dict(state["trained"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._scaler.load_state_dict(state["scaler"])
        if self._ema:
            self._ema.load_state_dict(state["ema"])

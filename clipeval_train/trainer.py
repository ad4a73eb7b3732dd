"""What is trained: a task's weights, their optimizer, their average, and the clock."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from timm.utils import ModelEmaV3

from clipeval.errors import UsageError
from clipeval_train import optim
from clipeval_train.distributed import World
from clipeval_train.task import Task
from clipeval_train.towers import random_state, set_random_state


@dataclass
class Clock:
    """``seen`` counts the samples of all steps the weights have been through; it drives schedule, saves and end.

    ``left_out`` counts those that rollbacks have passed over, so ``position`` is the place in the stream.
    """

    seen: int = 0
    left_out: int = 0
    rollbacks: int = 0
    skipped_steps: int = 0
    """Steps without an update because fp16 had overflown; their samples count as seen."""

    @property
    def position(self) -> int:
        return self.seen + self.left_out


class Reading:
    """Numbers that are on their way from the device: whoever reads them waits, the sooner the longer."""

    def __init__(self, *values: torch.Tensor) -> None:
        numbers = torch.stack([value.double() for value in values])
        self._done = None
        if numbers.device.type == "cuda":
            numbers = torch.empty_like(numbers, device="cpu", pin_memory=True).copy_(numbers, non_blocking=True)
            self._done = torch.cuda.Event()
            self._done.record()
        self._numbers = numbers

    def read(self) -> list[float]:
        """The numbers."""
        if self._done:
            self._done.synchronize()
        return [float(number) for number in self._numbers.tolist()]


class Trainer:
    """One rank's copy of the weights. Gradients are those of all ranks together, so the copies stay equal."""

    def __init__(self, task: Task, world: World) -> None:
        """Starts from the weights of the open ``task``. Raises UsageError when the precision is impossible here."""
        config = task.config
        if config.precision == "fp16" and world.device.type != "cuda":
            raise UsageError("precision: fp16 needs a CUDA device, and this machine has none. Give bf16 or fp32.")
        self.clock = Clock()
        self._task, self._config, self._world, self._step = task, config, world, task.step
        self._optimizer = task.optimizer
        self._scaler = torch.amp.GradScaler(world.device.type, enabled=config.precision == "fp16")
        self._ema = ModelEmaV3(self._step.module, config.ema) if config.ema else None
        self._seed_generators()

    def gradient(self, images: torch.Tensor, tokens: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Loss and gradient norm of the whole batch, ``[]`` each; ``images`` (values to 255) and ``tokens`` are this
        rank's part."""
        loss = self._step.backward(images, tokens, self._scaler)
        return loss, optim.clip_gradient(self._optimizer, self._scaler, self._config.grad_clip)

    def is_broken(self, loss: float, norm: float) -> bool:
        """Whether training cannot go on from here. In fp16 gradients overflow now and then: that step is skipped."""
        return not math.isfinite(loss) or not (math.isfinite(norm) or self._scaler.is_enabled())

    def skips(self, norm: float) -> bool:
        """Whether the step with this norm was left out because fp16 had overflown; it is counted."""
        skipped = self._scaler.is_enabled() and not math.isfinite(norm)
        self.clock.skipped_steps += skipped
        return skipped

    def counts(self) -> dict[str, int]:
        """What has gone wrong so far."""
        return {key: value for key, value in asdict(self.clock).items() if key != "seen"}

    def update(self, loss: torch.Tensor, norm: torch.Tensor, lr: float, seen: int) -> Reading:
        """The optimizer's step with the gradient at hand, after which ``seen`` samples have been seen.

        One whose loss or norm is not finite leaves the weights as they are. Returns loss, norm and inverse temperature.
        """
        optim.set_rate(self._optimizer, lr)
        optim.step(self._optimizer, self._scaler, norm + 0 * loss)
        scale = self._step.updated()
        if self._ema:
            self._ema.update(self._step.module)
        self.clock.seen = seen
        return Reading(loss, norm, scale)

    @contextmanager
    def measured(self, use_ema: bool = True) -> Iterator[Any]:
        """As of ``Trained``."""
        module = self._step.module
        modes = {part: part.training for part in module.modules()}
        average = self._average() if use_ema else None
        trained = {name: tensor.clone() for name, tensor in module.state_dict().items()} if average else None
        if average:
            module.load_state_dict(average)
        module.eval()
        try:
            yield self._step
        finally:
            if trained:
                module.load_state_dict(trained)
            for part, mode in modes.items():
                part.training = mode

    def content(self, told: dict[str, Any]) -> dict[str, Any]:
        """A checkpoint of now, with what is ``told`` of the run in its metadata. Collective."""
        content = self._task.content(self.clock.seen, self._average())
        state = {
            "optimizer": self._optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
            "clock": asdict(self.clock),
            "rng": self._world.gather_objects(random_state(self._world.device)),
        }
        return content | {
            "metadata": {**told, **self.counts(), **content["metadata"]},
            "resume": None if content["resume"] is None else content["resume"] | state,
        }

    def load(self, saved: dict[str, Any]) -> None:
        """Go on from a checkpoint that was not the final one of its run.

        With another number of ranks than it was saved by, generators (which only dropout draws from) start anew.
        """
        resume = saved["resume"]
        average = self._task.load(saved)
        groups = self._optimizer.param_groups
        own = [{key: value for key, value in group.items() if key != "params"} for group in groups]
        self._optimizer.load_state_dict(resume["optimizer"])
        for group, settings in zip(self._optimizer.param_groups, own, strict=True):
            group |= settings  # betas, eps and decay are this run's, which may have changed them
        self._optimizer.zero_grad(set_to_none=True)
        if resume["scaler"]:  # a run that was not in fp16 before has none
            self._scaler.load_state_dict(resume["scaler"])
        self.clock = Clock(**resume["clock"])
        if self._ema:
            assert average is not None
            self._ema.module.load_state_dict(average)
        if len(resume["rng"]) == self._world.size:
            set_random_state(resume["rng"][self._world.rank], self._world.device)
        else:
            self._seed_generators()

    def _average(self) -> dict[str, torch.Tensor] | None:
        """The running average of the weights (Polyak & Juditsky 1992), by the module's names."""
        return self._ema.module.state_dict() if self._ema else None

    def _seed_generators(self) -> None:
        """Other numbers on every rank: equal dropout masks would make their samples less different."""
        seed = np.random.SeedSequence([self._config.seed, self._world.rank, self.clock.seen])
        torch.manual_seed(int(seed.generate_state(1)[0]))

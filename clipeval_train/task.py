"""What a run trains, as far as the loop has to know: pre-training and fine-tuning are the two that there are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch

from clipeval_train.config import PretrainConfig
from clipeval_train.distributed import World
from clipeval_train.finetune.config import FinetuneConfig
from clipeval_train.resume import Start

if TYPE_CHECKING:
    from clipeval_train.input import Batch


class Step(Protocol):
    """Computes gradients, the same whatever the number of processes and micro-batches."""

    @property
    def module(self) -> Any:
        """The model that is trained, bare: its state dict is averaged, and its modes are those of training."""

    def arrange(self, tokens: torch.Tensor) -> Any:
        """What ``backward`` takes beside images, of a batch on the CPU: it can be sent to a device as a tensor can."""

    def backward(self, images: torch.Tensor, tokens: Any, scaler: torch.amp.GradScaler | None = None) -> torch.Tensor:
        """Add the gradient of the global batch's mean loss to every parameter's ``grad``; returns that loss, ``[]``.
        Nothing in it waits for the device. Collective."""

    def updated(self) -> torch.Tensor:
        """The optimizer has made its step: the inverse temperature, ``[]``, kept in its range."""


class Trained(Protocol):
    """The weights as they are now."""

    def measured(self, use_ema: bool = True) -> AbstractContextManager[Any]:
        """The step as it is measured: in inference mode, and with the running average of the weights if there is one
        and it is not told otherwise."""


class Task(Protocol):
    """A model, its data, and what is measured of it. All that it has after ``open`` is equal in every process."""

    samples: int
    """Seen at the end, exactly."""
    gmacs: float
    """Of one sample, forward."""
    optimizer: torch.optim.Optimizer
    facts: dict[str, Any]
    """Metadata of every checkpoint."""

    @property
    def config(self) -> PretrainConfig | FinetuneConfig:
        """What the run is told."""

    @property
    def step(self) -> Step:
        """How gradients are computed."""

    def open(self, config: Any, world: World, start: Start | None) -> None:
        """Get everything ready, for ``config`` where nothing is left to the device. Raises ClipevalError, also where
        ``start`` is of other data or weights."""

    def batches(self, start: int, stop: int) -> Iterator[Batch]:
        """This process's part of every batch of the stream positions [start, stop)."""

    def learning_rate(self, clock: float) -> float:
        """At so many samples seen."""

    def is_asked_for(self, start: int, stop: int) -> bool:
        """Whether samples (start, stop] hold a place where a checkpoint is asked for."""

    def is_due(self, start: int, stop: int) -> bool:
        """Whether there is something to save or to measure when samples (start, stop] have been seen."""

    def measure(self, trained: Trained, start: int, stop: int, file: Callable[[], Path | None]) -> None:
        """Measure what is due when samples (start, stop] have been seen. ``file`` is where a checkpoint of now lies,
        written when it is called; None: there is none. What is found before is part of that checkpoint. Collective.

        Before the first step of a process it is called with the last batch of an earlier one: a kill may have come
        before, and what has been measured is not measured again.
        """

    def content(self, seen: int, average: dict[str, torch.Tensor] | None) -> dict[str, Any]:
        """A checkpoint of now, without what the loop counts; ``resume`` is None in one that nothing is to go on from.
        ``average`` has the averaged weights of the step's module."""

    def load(self, saved: dict[str, Any]) -> dict[str, torch.Tensor] | None:
        """Take up the weights of a checkpoint; returns the average of them that it holds."""

    def end(self, config: Any, path: Path, world: World) -> None:
        """The run is at its end, now or since long; its last checkpoint is at ``path``. May come without ``open``."""

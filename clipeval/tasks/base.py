"""What every task gets and returns: embeddings in, named values with intervals and one outcome per sample out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from clipeval.datasets.base import Dataset
    from clipeval.models.base import Encoder


@dataclass(frozen=True)
class Metric:
    """One value of one metric.

    ``value`` and the 95 % interval are in the metric's own unit (a proportion in [0, 1] for all metrics here);
    ``n`` is the number of samples the value rests on. ``status`` is ``ok``, or ``skipped``/``failed`` with the reason
    in ``error`` and NaN as value.
    """

    name: str
    value: float
    ci_low: float
    ci_high: float
    n: int
    higher_is_better: bool = True
    status: str = "ok"
    error: str = ""


@dataclass(frozen=True)
class TaskResult:
    """The metrics of one cell, and the per-sample outcomes they were computed from.

    ``samples`` maps a column name to an array; all columns have one entry per scored sample and the column ``id``
    holds the sample ids, so that two checkpoints can be compared pair by pair.
    """

    metrics: list[Metric]
    samples: dict[str, np.ndarray] = field(default_factory=dict)
    notes: dict[str, object] = field(default_factory=dict)


class Inputs(Protocol):
    """What a task may ask for. Embeddings are made once per checkpoint and shared by all tasks."""

    dataset: Dataset
    """The scored split: labels, prompts, captions, ids."""
    shots: int | None
    seed: int
    protocol: str
    """The task's protocol, ``default`` unless the configuration names another."""
    encoder: Encoder
    """The checkpoint itself, for a task that trains a copy of it."""
    workers: int
    """Image decoding processes such a task may use."""

    def images(self, indices: np.ndarray | None = None) -> np.ndarray:
        """Image embeddings ``[n, D]`` float32, not normalised, of the samples at ``indices`` (None: all)."""
        ...

    def take_images(self) -> np.ndarray:
        """All image embeddings as the caller's own, who may change them: they are not kept here any longer."""
        ...

    def texts(self, texts: list[str]) -> np.ndarray:
        """Text embeddings ``[len(texts), D]`` float32, not normalised. The task's ``texts`` function named them."""
        ...

    def split(self, kind: str) -> Inputs | None:
        """The ``train`` or ``val`` split of the same data set; None when it has none by that name."""
        ...

    def on_device(self, array: np.ndarray) -> Any:
        """``array`` as a tensor of the accelerator in use; the array itself on a CPU."""
        ...

    def say(self, sentence: str) -> None:
        """Tell who runs this what is about to happen."""
        ...

    def work(self, text: str, done: int = 0, total: int | None = None) -> None:
        """Show who runs this what is being done, with ``done`` of ``total`` steps finished where that is known."""
        ...

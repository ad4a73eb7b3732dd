"""One cell of a plan: what is measured on what, how, and whether it can be."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from clipeval import identity, vocabulary
from clipeval.config import DatasetEntry
from clipeval.evaluation.failures import InternalError
from clipeval.identity import CheckpointIdentity, DatasetIdentity, Measure
from clipeval.models import ModelSpec
from clipeval.results.ledger import measurement
from clipeval.tasks import TaskSpec, asked_for

State = Literal["done", "to do", "skipped", "missing", "failed"]


@dataclass(frozen=True)
class Cell:
    """One measurement: a checkpoint on a data set for a task with its parameters."""

    model: ModelSpec
    dataset: str
    entry: DatasetEntry
    task: TaskSpec
    shots: int | None
    seed: int
    protocol: str
    limit: int | None
    precision: str
    checkpoint: CheckpointIdentity | None = None
    data: DatasetIdentity | None = None
    """What is to be measured, by content; None where it cannot be read."""
    state: State = "to do"
    reason: str = ""
    to_download: bool = False
    """Whether it is ``missing`` only because a plan fetches nothing: the run itself may."""
    keeps: tuple[str, ...] = field(default=(), compare=False)
    """The splits of its data set whose pixels are kept when its checkpoint reads them (``keeping``)."""
    bug: InternalError | None = None
    """Why it is ``failed``, where that is nobody's mistake but ours."""

    @cached_property
    def measure(self) -> Measure:
        """How it is measured."""
        parameters = self.shots, self.seed, self.protocol, self.limit, self.precision
        return Measure(self.task.name, self.task.version, *parameters, asked_for(self.task, self.entry.main_metric))

    @property
    def main_metric(self) -> str:
        """The metric that stands for it: the data set's, where the task gives that, else the task's."""
        own = self.entry.main_metric or ""
        return own if self.measure.metric or vocabulary.task(self.task.name).gives(own) else self.task.main_metric

    @cached_property
    def id(self) -> str:
        """Digest of everything that decides its values. Names are in it only where the content is not known."""
        if self.checkpoint and self.data:
            return identity.cell_id(self.checkpoint, self.data, self.measure)
        names = self.model.name, self.dataset, self.entry.split
        return identity.unidentified_cell_id(names, self.checkpoint, self.data, self.measure)

    @property
    def measurement(self) -> tuple[Any, ...]:
        """What it is in the table (``results.ledger.measurement``)."""
        named = {"model": self.model.name, "dataset": self.dataset, "split": self.entry.split, "task": self.task.name}
        parameters = {name: getattr(self, name) for name in ("shots", "seed", "protocol", "precision", "limit")}
        return measurement(named | parameters)

    @property
    def label(self) -> str:
        """``model · data set · task`` with the shots, for people."""
        shots = f" {self.shots}-shot seed {self.seed}" if self.shots is not None else ""
        return f"{self.model.name} · {self.dataset} · {self.task.name}{shots}"


def training_splits(cell: Cell) -> list[str]:
    """The splits that a cell's task trains on, in the order train, validation."""
    if "train" not in cell.task.needs:
        return []
    return [split for split in (cell.entry.train_split, cell.entry.val_split) if split]

"""The tasks by name. A task is one module with three functions, a line of ``TASKS``, and one of ``vocabulary.TASKS``.

texts(dataset) -> list[str]        the texts it will ask for, so that those of all cells are encoded together
run(inputs) -> TaskResult          collects the arrays
evaluate(...) -> TaskResult        scores them; a pure function of arrays
protocol(settings) -> str          of tasks with settings in benchmarks.yaml (``tasks.NAME``): how it is measured,
                                   part of a cell's identity
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast

from clipeval import vocabulary
from clipeval.errors import UsageError, suggest

if TYPE_CHECKING:
    from clipeval.datasets.base import Dataset
    from clipeval.tasks.base import Inputs, TaskResult


@dataclass(frozen=True)
class TaskSpec:
    """What there is to know of a task without importing it.

    ``short`` is a second name for the command line, ``version`` changes whenever its values do. ``needs`` is what a
    data set must have for it, out of labels, prompts, captions, choices and train (a training split). ``address`` is
    its module, by default the one of its name here. What it is called is a line of ``clipeval.vocabulary``.
    """

    name: str
    short: str
    version: int
    needs: tuple[str, ...]
    address: str = ""

    @property
    def title(self) -> str:
        """What it is called on screen."""
        return vocabulary.task(self.name).title

    @property
    def main_metric(self) -> str:
        """The metric that stands for it in summaries."""
        return vocabulary.task(self.name).main[0]


class Task(Protocol):
    """What a task's module offers to a runner."""

    def texts(self, dataset: Dataset) -> list[str]:
        """The texts ``run`` will ask for. Raises MetricError where the data set is not fit for the task."""
        ...

    def run(self, inputs: Inputs) -> TaskResult:
        """Measure one cell. Raises MeasureError."""
        ...

    def protocol(self, settings: Any) -> str:
        """The name of the way that ``settings`` (``tasks.NAME`` of benchmarks.yaml) ask for; only tasks that have some.

        Raises UsageError.
        """
        ...


_SPECS = (
    TaskSpec("zeroshot_classification", "classification", 1, ("labels", "prompts")),
    TaskSpec("zeroshot_retrieval", "retrieval", 1, ("captions",)),
    TaskSpec("linear_probe", "probe", 2, ("labels", "train")),
    TaskSpec("knn_probe", "knn", 1, ("labels", "train")),
    TaskSpec("finetune", "", 1, ("labels", "train"), "clipeval_train.finetune.task"),
    TaskSpec("image_caption_selection", "", 1, ("choices",)),
)
TASKS: dict[str, TaskSpec] = {spec.name: spec for spec in _SPECS}


def canonical_name(word: str) -> str:
    """The task that ``word`` names, by its name or its short name. Raises UsageError with the names there are."""
    names = {spec.short: spec.name for spec in _SPECS if spec.short} | {name: name for name in TASKS}
    if word not in names:
        listed = ", ".join(f"{spec.name} ({spec.short})" if spec.short else spec.name for spec in _SPECS)
        raise UsageError(f"'{word}' is not a task.{suggest(word, names)} Tasks: {listed}.")
    return names[word]


def load_task(spec: TaskSpec) -> Task:
    """The module of a task."""
    return cast(Task, importlib.import_module(spec.address or f"{__name__}.{spec.name}"))

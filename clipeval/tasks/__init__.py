"""The tasks by name. A task is one module with three functions, a line of ``TASKS``, and one of ``vocabulary.TASKS``.

texts(dataset) -> list[str]        the texts it will ask for, so that those of all cells are encoded together
run(inputs) -> TaskResult          collects the arrays
evaluate(...) -> TaskResult        scores them; a pure function of arrays
protocol(settings) -> str          of tasks with settings in benchmarks.yaml (``tasks.NAME``): how it is measured,
                                   part of a cell's identity

Other packages bring tasks as functions (``clipeval.tasks.foreign``) under names that no task here has.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast

from clipeval import extensions, vocabulary
from clipeval.errors import UsageError, suggest
from clipeval.extensions import Extension

if TYPE_CHECKING:
    from clipeval.datasets.base import Dataset
    from clipeval.tasks.base import Inputs, TaskResult


@dataclass(frozen=True)
class TaskSpec:
    """What there is to know of a task without importing it.

    ``short`` is a second name for the command line, ``version`` changes whenever its values do; of an ``extension``, a
    task of another package, it is the package's. ``needs`` is what a
    data set must have for it, out of labels, prompts, captions, choices, cues and train (a training split). ``address``
    is its module, by default the one of its name here. What it is called is a line of ``clipeval.vocabulary``.
    """

    name: str
    short: str
    version: int | str
    needs: tuple[str, ...]
    address: str = ""
    extension: Extension | None = None

    @property
    def title(self) -> str:
        """What it is called on screen."""
        return vocabulary.task(self.name).title

    @property
    def main_metric(self) -> str:
        """The metric that stands for it in summaries; the task's name where nobody knows its metrics."""
        main = vocabulary.task(self.name).main
        return main[0] if main else self.name

    @property
    def metrics(self) -> tuple[str, ...]:
        """All metrics that it may give, as far as they are known: those of other packages are not, but for metrics that
        they bring."""
        brought = extensions.named("clipeval.metrics") if self.name == _TAKES_METRICS else {}
        ours = vocabulary.task(self.name).metrics
        return (*ours, *(name for name in brought if name not in vocabulary.METRICS))


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


_TAKES_METRICS = "zeroshot_classification"
"""The task that metrics of other packages score."""
_SPECS = (
    TaskSpec("zeroshot_classification", "classification", 1, ("labels", "prompts")),
    TaskSpec("zeroshot_retrieval", "retrieval", 1, ("captions",)),
    TaskSpec("linear_probe", "probe", 3, ("labels", "train")),
    TaskSpec("knn_probe", "knn", 1, ("labels", "train")),
    TaskSpec("finetune", "", 1, ("labels", "train"), "clipeval_train.finetune.task"),
    TaskSpec("image_caption_selection", "", 1, ("choices",)),
    TaskSpec("association", "", 1, ("cues",)),
)
TASKS: dict[str, TaskSpec] = {spec.name: spec for spec in _SPECS}
_NAMES = {spec.short: spec for spec in _SPECS if spec.short} | TASKS


def named(word: str) -> TaskSpec:
    """The task that ``word`` names, by its name or its short name, of this or another package. Raises UsageError with
    the names there are."""
    if word in _NAMES:  # others are not looked for
        return _NAMES[word]
    others = {spec.name: spec for spec in brought()}
    if word in others:
        return others[word]
    specs = (*_SPECS, *others.values())
    listed = ", ".join(f"{spec.name} ({spec.short})" if spec.short else spec.name for spec in specs)
    raise UsageError(f"'{word}' is not a task.{suggest(word, [*_NAMES, *others])} Tasks: {listed}.")


def brought() -> list[TaskSpec]:
    """The tasks of other packages, but for those whose names mean another here."""
    found = extensions.named("clipeval.tasks").values()
    return [TaskSpec(own.name, "", own.package, (), extension=own) for own in found if own.name not in _NAMES]


def canonical_name(word: str) -> str:
    """The name of the task that ``word`` names. Raises UsageError with the names there are."""
    return named(word).name


def asked_for(spec: TaskSpec, main_metric: str | None) -> str:
    """What the ``main_metric`` of a data set asks of a task beyond what it always gives, of another package with its
    version; empty where it does not."""
    if main_metric is None or main_metric in vocabulary.METRICS:  # others are not looked for
        asks = main_metric in vocabulary.task(spec.name).metrics and vocabulary.METRICS[main_metric].asked
        return str(main_metric) if asks else ""
    found = extensions.named("clipeval.metrics").get(main_metric) if spec.name == _TAKES_METRICS else None
    return f"{main_metric} of {found.package}" if found else ""


def load_task(spec: TaskSpec) -> Task:
    """The module of a task, or the function of another package as one."""
    if spec.extension:
        from clipeval.tasks.foreign import ForeignTask

        return ForeignTask(spec.extension)
    return cast(Task, importlib.import_module(spec.address or f"{__name__}.{spec.name}"))

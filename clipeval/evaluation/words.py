"""Words of a configuration that name no task and no metric: errors before anything is measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from clipeval import extensions, vocabulary
from clipeval.config import Config, DatasetEntry
from clipeval.errors import UsageError, suggest
from clipeval.tasks import TaskSpec, named


def require_tasks(config: Config) -> None:
    """Raises UsageError for a task in the configuration that is none, with its place."""
    for name, entry in config.datasets.items():
        for number, word in enumerate(entry.tasks or ()):
            try:
                named(word)
            except UsageError as error:
                raise UsageError(f"{config.path}: datasets.{name}.tasks[{number}]: {error}") from error


def require_metrics(config: Config, entries: Mapping[str, DatasetEntry], tasks: Sequence[TaskSpec]) -> None:
    """Raises UsageError for a main metric that nothing gives, with its place: it would be missing in silence. What a
    task of another package gives nobody knows before."""
    for name, entry in entries.items():
        if entry.main_metric is None or entry.main_metric in vocabulary.METRICS:
            continue
        known = {*vocabulary.METRICS, *extensions.named("clipeval.metrics")}
        own = [*tasks, *(named(word) for word in entry.tasks or ())]
        if entry.main_metric not in known and not any(task.extension for task in own):
            raise UsageError(
                f"{config.path}: datasets.{name}.main_metric: '{entry.main_metric}' is no metric of a task, and no "
                f"package brings it.{suggest(entry.main_metric, known)} See: clipeval list tasks"
            )

"""What a run is about, as far as words say it: before anything is opened, and anything heavy imported."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from clipeval.config import Config
from clipeval.datasets import selection
from clipeval.errors import counted
from clipeval.models import specs
from clipeval.tasks import TaskSpec, named
from clipeval.version import __version__


def outline(
    config: Config,
    models: Sequence[str],
    datasets: Sequence[str],
    tasks: Sequence[str],
    shots: Sequence[int | None] | None = None,
    *,
    is_new: bool = False,
    allow_python: bool = False,
) -> str:
    """The first line of a run: how many checkpoints and data sets and, where tasks are named, how many cells; empty
    where there are none. ``is_new``: nothing can be done yet. Raises UsageError for words that name nothing."""
    checkpoints = len(specs.resolve(models, config, allow_python=allow_python))
    sets = len(selection.resolve(datasets or config.own_datasets, config).datasets)
    if not checkpoints or not sets:
        return ""
    line = f"clipeval {__version__} · {counted(checkpoints, 'checkpoint')} x {counted(sets, 'data set')}"
    found = list(dict.fromkeys(named(word) for word in tasks))
    if not found:
        return line
    each = sum(1 for task in found for _ in variants(task, config, shots))
    ways = counted(len(found), "task")
    ways = ways if each == len(found) else f"{each} measurements of {ways}"
    return f"{line} x {ways} = {counted(checkpoints * sets * each, 'cell')}{', 0 done' if is_new else ''}"


def variants(
    task: TaskSpec, config: Config, shots: Sequence[int | None] | None, seed: int = 0
) -> Iterator[tuple[int | None, int]]:
    """Shots and seed of each cell of a task on a data set under one checkpoint; ``shots`` None: the configuration's."""
    if "train" not in task.needs:  # it draws nothing: its intervals have a seed of their own
        yield None, 0
        return
    settings = getattr(config.tasks, task.name)
    for number in shots if shots is not None else (*((None,) if settings.full else ()), *settings.shots):
        for draw in range(1 if number is None else settings.seeds):
            yield number, seed + draw

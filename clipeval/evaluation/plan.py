"""From what was asked for to an ordered list of cells, each with its state and cost. A run executes exactly this."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from clipeval import datasets, digest, models
from clipeval.config import Config, DatasetEntry
from clipeval.datasets.base import Dataset
from clipeval.errors import ClipevalError, UsageError
from clipeval.models import ModelSpec
from clipeval.models.base import ModelInfo
from clipeval.results.ledger import Ledger
from clipeval.results.suites import COMPOUND_METRICS, SuiteRequest
from clipeval.tasks import TASKS, TaskSpec, canonical_name, load_task

State = Literal["done", "to do", "skipped", "missing", "failed"]
RERUN_CHOICES = ("missing", "always", "never")


@dataclass(frozen=True)
class Options:
    """How to run; none of it says what to run."""

    out: Path
    limit: int | None = None
    seed: int = 0
    shots: tuple[int | None, ...] | None = None
    """Shots of few-shot tasks; None inside means the full training set. None: what the configuration says."""
    device: str = "cpu"
    precision: str = "fp32"
    batch_size: int = 64
    workers: int = 0
    """Image decoding processes; of a Ray run the workers, 0 for as many as the cluster has GPUs or cores."""
    rerun: str = "missing"
    offline: bool = False
    executor: str = "local"
    ray_address: str | None = None


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
    id: str = ""
    state: State = "to do"
    reason: str = ""

    @property
    def label(self) -> str:
        """``model · data set · task`` with the shots, for people."""
        shots = f" {self.shots}-shot seed {self.seed}" if self.shots is not None else ""
        return f"{self.model.name} · {self.dataset} · {self.task.name}{shots}"


@dataclass(frozen=True)
class Plan:
    """All cells of a run in the order of execution, and the objects they refer to."""

    cells: tuple[Cell, ...]
    infos: dict[str, ModelInfo]
    datasets: dict[str, Dataset]
    suites: tuple[SuiteRequest, ...]

    def to_do(self) -> list[Cell]:
        """The cells a run will measure, including those that will be tried although something is missing."""
        return [cell for cell in self.cells if cell.state != "done"]


def build(
    config: Config,
    model_words: Sequence[str],
    dataset_words: Sequence[str],
    task_words: Sequence[str],
    options: Options,
    ledger: Ledger,
    *,
    dry: bool = False,
) -> Plan:
    """Resolve every word, open every data set, identify every checkpoint, and compare with the ledger.

    A ``dry`` build downloads nothing; what is not on this machine gets the state ``missing``. Raises UsageError for
    words that name nothing.
    """
    specs = models.resolve(model_words, config)
    selection = datasets.resolve(dataset_words or config.own_datasets, config)
    tasks = [TASKS[canonical_name(word)] for word in dict.fromkeys(task_words)]
    if not specs:
        raise UsageError(
            "no model given: name one with -m, for example: -m ViT-B-32,laion2b_s34b_b79k (all: clipeval list models)"
        )
    if not selection.datasets:
        raise UsageError("no data set given: name one with -d, for example: -d digits (all: clipeval list datasets)")
    offline = options.offline or dry
    opened: dict[str, Dataset | ClipevalError] = {
        name: _attempt(datasets.open_dataset, name, entry, offline=offline)
        for name, entry in selection.datasets.items()
    }
    described = {spec.name: _attempt(models.describe, spec, offline=offline) for spec in specs}
    cells = [
        _with_state(cell, described[spec.name], opened[cell.dataset], ledger, options, dry)
        for spec in specs
        for cell in _cells_of(spec, selection.datasets, opened, tasks, config, options)
    ]
    return Plan(
        tuple(cells),
        {name: info for name, info in described.items() if isinstance(info, ModelInfo)},
        {name: dataset for name, dataset in opened.items() if isinstance(dataset, Dataset)},
        tuple(_suite_requests(config, selection.suites, sorted({cell.task.name for cell in cells}))),
    )


def _attempt(function: Any, *arguments: Any, **keywords: Any) -> Any:
    try:
        return function(*arguments, **keywords)
    except UsageError:
        raise
    except ClipevalError as error:
        return error


def _cells_of(
    spec: ModelSpec,
    entries: dict[str, DatasetEntry],
    opened: dict[str, Dataset | ClipevalError],
    tasks: list[TaskSpec],
    config: Config,
    options: Options,
) -> Iterator[Cell]:
    for name, entry in entries.items():
        for task in tasks or _default_tasks(entry, opened[name]):
            settings = getattr(config.tasks, task.name, None)
            protocol = load_task(task).protocol(settings) if settings else "default"
            for shots, seed in _variants(task, config, options):
                yield Cell(spec, name, entry, task, shots, seed, protocol, options.limit, options.precision)


def _default_tasks(entry: DatasetEntry, dataset: Dataset | ClipevalError) -> list[TaskSpec]:
    """Without -t: the zero-shot tasks the data set allows, as in the paper. Training on it must be asked for."""
    allowed = [TASKS[canonical_name(word)] for word in entry.tasks] if entry.tasks else list(TASKS.values())
    zero_shot = [task for task in allowed if "train" not in task.needs]
    if isinstance(dataset, Dataset):
        contents = datasets.capabilities(dataset)
        return [task for task in zero_shot if set(task.needs) <= contents]
    return zero_shot if entry.tasks else zero_shot[:1]


def _variants(task: TaskSpec, config: Config, options: Options) -> Iterator[tuple[int | None, int]]:
    if "train" not in task.needs:
        yield None, options.seed
        return
    settings = getattr(config.tasks, task.name)
    all_shots = options.shots if options.shots is not None else (*((None,) if settings.full else ()), *settings.shots)
    for shots in all_shots:
        for draw in range(1 if shots is None else settings.seeds):
            yield shots, options.seed + draw


def _with_state(
    cell: Cell,
    info: ModelInfo | ClipevalError,
    dataset: Dataset | ClipevalError,
    ledger: Ledger,
    options: Options,
    dry: bool,
) -> Cell:
    absent: State = "missing" if dry else "failed"
    cell = replace(cell, id=_cell_id(cell, info, dataset))
    if isinstance(dataset, ClipevalError):
        return replace(cell, state=absent, reason=str(dataset))
    contents = datasets.capabilities(dataset) | ({"train"} if cell.entry.train_split else set())
    if lacking := [need for need in cell.task.needs if need not in contents]:
        reason = f"{cell.dataset} has no {' and no '.join(_NEED_WORDS.get(need, need) for need in lacking)}"
        return _unless_recorded(replace(cell, state="skipped", reason=reason), ledger, options)
    if isinstance(info, ClipevalError):
        return replace(cell, state=absent, reason=str(info))
    return _unless_recorded(cell, ledger, options)


_NEED_WORDS = {"prompts": "class names", "train": "training split"}


def _unless_recorded(cell: Cell, ledger: Ledger, options: Options) -> Cell:
    recorded = cell.id in ledger.cells
    if options.rerun == "never" and recorded:
        return replace(cell, state="done")
    if options.rerun == "missing" and ledger.finished(cell.id):
        return replace(cell, state="done")
    return cell


def _cell_id(cell: Cell, info: ModelInfo | ClipevalError, dataset: Dataset | ClipevalError) -> str:
    """Everything that decides the values of a cell. Of an unknown part only the name is in it."""
    return digest.of_value(
        {
            "model": cell.model.name,
            "weights": info.checkpoint_sha256 if isinstance(info, ModelInfo) else None,
            "metadata": info.samples_seen_from + repr((info.source, info.samples_seen, info.gmacs))
            if isinstance(info, ModelInfo)
            else None,
            "dataset": cell.dataset,
            "split": cell.entry.split,
            "other_splits": [cell.entry.train_split, cell.entry.val_split] if "train" in cell.task.needs else None,
            "fingerprint": dataset.fingerprint if isinstance(dataset, Dataset) else None,
            "prompts": digest.of_value([dataset.prompts.classes, dataset.prompts.templates])
            if isinstance(dataset, Dataset) and dataset.prompts
            else None,
            "task": [cell.task.name, cell.task.version],
            "shots": cell.shots,
            "seed": cell.seed,
            "protocol": cell.protocol,
            "limit": cell.limit,
            "precision": cell.precision,
        }
    )[:32]


def _suite_requests(config: Config, names: Sequence[str], tasks: Sequence[str]) -> Iterator[SuiteRequest]:
    for name in names:
        suite = config.suites[name]
        main = tuple((member, config.datasets[member].main_metric or "acc1") for member in suite.members)
        lists = [(metric, tuple((member, metric) for member in suite.members)) for metric in suite.metric]
        for metric, members in lists or [("main_metric", main)]:
            kinds = {_is_retrieval(metric) for _, metric in members}
            if len(kinds) > 1:
                yield SuiteRequest(name, metric, members, tuple(t for t in tasks if t.startswith("zeroshot")))
                continue
            for task in tasks:
                if (task == "zeroshot_retrieval") == kinds.copy().pop():
                    shown = members[0][1] if len({m for _, m in members}) == 1 else metric
                    yield SuiteRequest(name, shown, members, (task,))


def _is_retrieval(metric: str) -> bool:
    return "retrieval" in metric or metric in COMPOUND_METRICS

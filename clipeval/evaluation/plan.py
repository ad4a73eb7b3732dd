"""From what was asked for to an ordered list of cells, each with its state and cost. A run executes exactly this."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from clipeval import datasets, digest, identity, models, vocabulary
from clipeval.config import Config, DatasetEntry
from clipeval.datasets.base import Dataset
from clipeval.errors import ClipevalError, ModelError, NotHereError, UsageError
from clipeval.evaluation.failures import InternalError, attempt
from clipeval.evaluation.request import Request
from clipeval.evaluation.shelf import Shelf
from clipeval.evaluation.words import require_metrics, require_tasks
from clipeval.identity import CheckpointIdentity, DatasetIdentity, Measure
from clipeval.models import ModelSpec
from clipeval.models.base import ModelInfo
from clipeval.remote import copies, hub
from clipeval.results import suites, table
from clipeval.results.ledger import Ledger, Record
from clipeval.results.schema import COLUMNS, misfit
from clipeval.tasks import TASKS, TaskSpec, asked_for, load_task, named

if TYPE_CHECKING:
    from clipeval.models.opened import Opened

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
    bug: InternalError | None = None
    """Why it is ``failed``, where that is nobody's mistake but ours."""

    @property
    def measure(self) -> Measure:
        """How it is measured."""
        parameters = self.shots, self.seed, self.protocol, self.limit, self.precision
        return Measure(self.task.name, self.task.version, *parameters, asked_for(self.task, self.entry.main_metric))

    @property
    def main_metric(self) -> str:
        """The metric that stands for it: the data set's, where the task gives that, else the task's."""
        own = self.entry.main_metric or ""
        return own if self.measure.metric or vocabulary.task(self.task.name).gives(own) else self.task.main_metric

    @property
    def id(self) -> str:
        """Digest of everything that decides its values. Names are in it only where the content is not known."""
        if self.checkpoint and self.data:
            return identity.cell_id(self.checkpoint, self.data, self.measure)
        names = self.model.name, self.dataset, self.entry.split
        return identity.unidentified_cell_id(names, self.checkpoint, self.data, self.measure)

    @property
    def measurement(self) -> tuple[Any, ...]:
        """What it is in the table (``results.table.measurement``)."""
        named = {"model": self.model.name, "dataset": self.dataset, "split": self.entry.split, "task": self.task.name}
        parameters = {name: getattr(self, name) for name in ("shots", "seed", "protocol", "precision", "limit")}
        return table.measurement(named | parameters)

    @property
    def label(self) -> str:
        """``model · data set · task`` with the shots, for people."""
        shots = f" {self.shots}-shot seed {self.seed}" if self.shots is not None else ""
        return f"{self.model.name} · {self.dataset} · {self.task.name}{shots}"


@dataclass(frozen=True)
class Plan:
    """All cells of a run in the order of execution, and the objects they refer to."""

    request: Request
    cells: tuple[Cell, ...]
    checkpoints: dict[str, Opened]
    """Those that can be read, by name."""
    datasets: dict[str, Dataset]
    splits: dict[tuple[str, str], Dataset]
    """The splits that are trained on, by data set and split."""
    suites: tuple[suites.SuiteRequest, ...]
    notes: tuple[str, ...] = ()
    """What a person should know of it, each a line."""
    split_remarks: Mapping[tuple[str, str], tuple[str, ...]] = field(default_factory=dict)
    """Sentences on what was read, by data set and split."""

    def remarks(self, cell: Cell) -> list[str]:
        """Sentences on the checkpoint and the splits of a cell, for its rows. They decide nothing."""
        opened = self.checkpoints.get(cell.model.name)
        found = [*opened.remarks] if opened else []
        for split in (cell.entry.split, *training_splits(cell)):
            found += self.split_remarks.get((cell.dataset, split), ())
        return found

    def infos(self) -> list[ModelInfo]:
        """What is known of each checkpoint."""
        return [self.info(model) for model in {cell.model.name: cell.model for cell in self.cells}.values()]

    def info(self, model: ModelSpec) -> ModelInfo:
        """The facts of a checkpoint; of one that cannot be read only what its spec says."""
        if found := self.checkpoints.get(model.name):
            return found.info
        return ModelInfo(model.name, model.arch, model.pretrained)

    def to_do(self) -> list[Cell]:
        """The cells a run will measure, including those that will be tried although something is missing."""
        return [cell for cell in self.cells if cell.state != "done"]


def build(request: Request, ledger: Ledger, *, dry: bool = False) -> Plan:
    """Resolve every word, open every data set, identify every checkpoint, and compare with the ledger.

    A ``dry`` build downloads nothing; what is not on this machine gets the state ``missing``. Raises UsageError for
    words that name nothing.
    """
    config, options = request.config, request.options
    specs = models.resolve(request.models, config, allow_python=options.allow_python)
    selection = datasets.resolve(request.datasets or config.own_datasets, config).with_prompts(request.prompts)
    tasks = list(dict.fromkeys(named(word) for word in request.tasks))
    require_tasks(config)
    require_metrics(config, selection.datasets, tasks)
    if not specs:
        raise UsageError(
            "no model given: name one with -m, for example: -m ViT-B-32,laion2b_s34b_b79k (all: clipeval list models)"
        )
    if not selection.datasets:
        raise UsageError("no data set given: name one with -d, for example: -d digits (all: clipeval list datasets)")
    offline = options.offline or dry
    hub.begin()
    copies.begin()
    checkpoints = {spec.name: attempt(_identified, spec, offline) for spec in specs}
    in_vain = all(isinstance(found, ClipevalError) for found in checkpoints.values())
    shelf = Shelf(selection.datasets, offline or in_vain)
    asked = [
        cell for spec in specs for name in selection.datasets for cell in _cells_of(spec, name, shelf, tasks, request)
    ]
    cells = [_read(cell, checkpoints[cell.model.name], shelf, dry, bool(tasks)) for cell in asked]
    history = _History(ledger, checkpoints, shelf)
    cells = [history.compared(cell, options.rerun) for cell in cells]
    opened = {name: found for name, found in checkpoints.items() if not isinstance(found, ClipevalError)}
    remarks = shelf.remarks()
    of_splits = [f"{name}: {sentence}" for (name, _), sentences in remarks.items() for sentence in sentences]
    of_checkpoints = [f"{name}: {sentence}" for name, found in opened.items() for sentence in found.remarks]
    return Plan(
        request,
        tuple(cells),
        opened,
        {name: found for name in selection.datasets if isinstance(found := shelf.open(name), Dataset)},
        shelf.trained_on(),
        tuple(_averages(config, selection.suites, {cell.task for cell in cells})),
        (*history.notes(), *of_splits, *of_checkpoints),
        remarks,
    )


def _averages(config: Config, names: Sequence[str], tasks: Collection[TaskSpec]) -> Iterator[suites.SuiteRequest]:
    trained = [task.name for task in tasks if "train" in task.needs]
    return suites.requests(config, names, sorted(task.name for task in tasks), trained)


def _identified(spec: ModelSpec, offline: bool) -> Opened:
    """The opened checkpoint, whose identity and facts are known."""
    checkpoint = models.open_checkpoint(spec, offline=offline)
    if (column := misfit(vars(checkpoint.info))) is not None:
        raise ModelError(
            f"{spec.name}: what is written of it as {column} is not of the column's type, {COLUMNS[column]}."
        )
    assert checkpoint.identity
    return checkpoint


def training_splits(cell: Cell) -> list[str]:
    """The splits that a cell's task trains on, in the order train, validation."""
    if "train" not in cell.task.needs:
        return []
    return [split for split in (cell.entry.train_split, cell.entry.val_split) if split]


def _cells_of(spec: ModelSpec, name: str, shelf: Shelf, tasks: list[TaskSpec], request: Request) -> Iterator[Cell]:
    entry, options = shelf.entries[name], request.options
    for task in tasks or _default_tasks(entry, shelf.open(name)):
        settings = None if task.extension else getattr(request.config.tasks, task.name, None)
        protocol = load_task(task).protocol(settings) if settings else "default"
        for shots, seed in _variants(task, request):
            yield Cell(spec, name, entry, task, shots, seed, protocol, options.limit, options.precision)


def _default_tasks(entry: DatasetEntry, dataset: Dataset | ClipevalError) -> list[TaskSpec]:
    """Without -t: the zero-shot tasks the data set allows, as in the paper. Training on it must be asked for."""
    allowed = [named(word) for word in entry.tasks] if entry.tasks else list(TASKS.values())
    zero_shot = [task for task in allowed if "train" not in task.needs]
    if isinstance(dataset, Dataset):
        contents = datasets.capabilities(dataset)
        possible = [task for task in zero_shot if set(task.needs) <= contents]
        nameless = [task for task in zero_shot if set(task.needs) - contents == {"prompts"}]  # rows that say so
        return possible + nameless or zero_shot[:1] or allowed[:1]
    return zero_shot[: None if entry.tasks else 1] or allowed[:1]


def _variants(task: TaskSpec, request: Request) -> Iterator[tuple[int | None, int]]:
    options = request.options
    if "train" not in task.needs:  # it draws nothing: its intervals have a seed of their own
        yield None, 0
        return
    settings = getattr(request.config.tasks, task.name)
    all_shots = options.shots if options.shots is not None else (*((None,) if settings.full else ()), *settings.shots)
    for shots in all_shots:
        for draw in range(1 if shots is None else settings.seeds):
            yield shots, options.seed + draw


def _read(cell: Cell, checkpoint: Opened | ClipevalError, shelf: Shelf, dry: bool, asked: bool) -> Cell:
    """The cell with its identities, and whether they allow it to be measured. Its task may not be ``asked`` for."""
    if not isinstance(checkpoint, ClipevalError):
        model = replace(cell.model, commit=checkpoint.revision)
        cell = replace(cell, checkpoint=checkpoint.identity, model=model)
    opened = shelf.open(cell.dataset)
    if isinstance(opened, Dataset) and opened.revision:
        cell = replace(cell, entry=cell.entry.model_copy(update={"revision": opened.revision}))
    lacking = _lacking(cell, opened)
    unasked = "train" in cell.task.needs and not asked
    trained = [] if lacking or unasked else training_splits(cell)
    data = attempt(shelf.identity, cell.dataset, trained)
    if not isinstance(data, ClipevalError):
        cell = replace(cell, data=data)
        if lacking:
            advice = _NAMELESS if lacking == [_NEED_WORDS["prompts"]] else ""
            return replace(cell, state="skipped", reason=f"{cell.dataset} has no {' and no '.join(lacking)}{advice}")
        if unasked:
            word = cell.task.short or cell.task.name
            reason = f"{cell.task.name} trains on the data, which has to be asked for: -t {word}"
            return replace(cell, state="skipped", reason=reason)
    errors = [found for found in (checkpoint, data) if isinstance(found, ClipevalError)]
    return _absent(cell, errors if dry else errors[:1], dry) if errors else cell


def _absent(cell: Cell, errors: list[ClipevalError], dry: bool) -> Cell:
    bug = next((error for error in errors if isinstance(error, InternalError)), None)
    reason = " ".join(str(error) for error in errors)
    absent = dry or all(map(_is_not_here, errors))
    return replace(cell, state="missing" if absent and not bug else "failed", reason=reason, bug=bug)


def _is_not_here(error: BaseException | None) -> bool:
    """Whether all there is against it is that it is not on this machine."""
    return error is not None and (isinstance(error, NotHereError) or _is_not_here(error.__cause__))


_NEED_WORDS = {"prompts": "class names", "cues": "cues with candidate images", "train": "training split"}
_NAMELESS = ": give them in classnames.txt or under prompts: in benchmarks.yaml, or ask for what needs none: -t probe"


def _lacking(cell: Cell, dataset: Dataset | ClipevalError) -> list[str]:
    """What the task needs and the data set does not have, for people."""
    if isinstance(dataset, ClipevalError):
        return []
    contents = datasets.capabilities(dataset) | ({"train"} if cell.entry.train_split else set())
    return [_NEED_WORDS.get(need, need) for need in cell.task.needs if need not in contents]


class _History:
    """What the ledger says of the cells of a plan."""

    def __init__(self, ledger: Ledger, checkpoints: dict[str, Opened | ClipevalError], shelf: Shelf) -> None:
        self._standing = table.standing(ledger)
        self._checkpoints, self._shelf = checkpoints, shelf
        self._outdated = 0

    def compared(self, cell: Cell, rerun: str) -> Cell:
        """The cell with the state ``done`` where the record that stands in the table is of this very cell."""
        record = self._standing.get(cell.measurement)
        if record is None or rerun == "always" or cell.state not in ("to do", "skipped"):
            return cell
        if record.cell not in (cell.id, self._earlier_id(cell, record)):
            self._outdated += _is_earlier(record)
            return cell
        return replace(cell, state="done") if record.finished or rerun == "never" else cell

    def notes(self) -> Iterator[str]:
        """Why cells of an earlier version's ledger are measured again."""
        if self._outdated:
            yield (
                f"{self._outdated} cells are measured again, from the cache where it has them: an earlier clipeval "
                "recorded them without the training data or the configuration beside the weights, or they have changed."
            )

    def _earlier_id(self, cell: Cell, record: Record) -> str | None:
        """The cell's id by the formula of version 1, where that and the architecture in the rows of ``record`` cover
        everything that decides its values."""
        checkpoint, dataset = self._checkpoints[cell.model.name], self._shelf.open(cell.dataset)
        covered = cell.model.kind in ("tag", "file", "hf", "trained") and "train" not in cell.task.needs
        if (
            not covered
            or cell.measure.metric
            or isinstance(checkpoint, ClipevalError)
            or not isinstance(dataset, Dataset)
        ):
            return None
        info, prompts = checkpoint.info, dataset.prompts
        if record.rows[0].get("arch", info.arch) != info.arch:
            return None
        parts = {
            "model": cell.model.name,
            "weights": info.checkpoint_sha256,
            "metadata": info.samples_seen_from + repr((info.source, info.samples_seen, info.gmacs)),
            "dataset": cell.dataset,
            "split": cell.entry.split,
            "other_splits": None,
            "fingerprint": dataset.fingerprint,
            "prompts": digest.of_value([prompts.classes, prompts.wording]) if prompts else None,
            "task": [cell.task.name, cell.task.version],
            **{name: getattr(cell, name) for name in ("shots", "seed", "protocol", "limit", "precision")},
        }
        return digest.of_value(parts)[:32]


def _is_earlier(record: Record) -> bool:
    return all("checkpoint_identity" not in row for row in record.rows)

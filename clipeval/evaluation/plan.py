"""From what was asked for to an ordered list of cells, each with its state and cost. A run executes exactly this."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from clipeval import datasets, models
from clipeval.config import Config, DatasetEntry
from clipeval.datasets.base import Dataset
from clipeval.errors import ClipevalError, ModelError, NotHereError, UsageError
from clipeval.evaluation.cell import Cell, training_splits
from clipeval.evaluation.failures import InternalError, attempt
from clipeval.evaluation.history import History
from clipeval.evaluation.keeping import Keeping
from clipeval.evaluation.request import Request
from clipeval.evaluation.shelf import Shelf
from clipeval.evaluation.words import require_metrics, require_tasks
from clipeval.models import ModelSpec
from clipeval.models.base import ModelInfo
from clipeval.remote import copies, hub
from clipeval.results import suites
from clipeval.results.ledger import Ledger
from clipeval.results.schema import COLUMNS, misfit
from clipeval.tasks import TASKS, TaskSpec, load_task, named

if TYPE_CHECKING:
    from clipeval.models.opened import Opened


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
    keeping: Keeping
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
    asked = [found for name in selection.datasets for found in _on_data_set(name, specs[0], shelf, tasks, request)]
    cells = [
        _of_checkpoint(*found, spec, checkpoints[spec.name], dry=dry, offline=options.offline)
        for spec in specs
        for found in asked
    ]
    history = History(ledger, checkpoints, shelf)
    cells = [history.compared(cell, options.rerun) for cell in cells]
    opened = {name: found for name, found in checkpoints.items() if not isinstance(found, ClipevalError)}
    ahead = ("to do", "missing") if dry else ("to do",)
    keeping = Keeping([cell for cell in cells if cell.state in ahead], opened, shelf)
    cells = [replace(cell, keeps=keeping.splits(cell)) for cell in cells]
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
        keeping,
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


def _on_data_set(
    name: str, anyone: ModelSpec, shelf: Shelf, tasks: list[TaskSpec], request: Request
) -> Iterator[tuple[Cell, ClipevalError | None]]:
    """The cells of a data set, which are the same for ``anyone``, with what of it they read, and why it cannot be."""
    opened, entry, options = shelf.open(name), shelf.entries[name], request.options
    if isinstance(opened, Dataset) and opened.revision:
        entry = entry.model_copy(update={"revision": opened.revision})
    for task in tasks or _default_tasks(entry, opened):
        settings = None if task.extension else getattr(request.config.tasks, task.name, None)
        protocol = load_task(task).protocol(settings) if settings else "default"
        for shots, seed in _variants(task, request):
            cell = Cell(anyone, name, entry, task, shots, seed, protocol, options.limit, options.precision)
            yield _read(cell, opened, shelf, bool(tasks))


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


def _read(cell: Cell, opened: Dataset | ClipevalError, shelf: Shelf, asked: bool) -> tuple[Cell, ClipevalError | None]:
    """The cell with the identity of its data, or the error, and whether it is skipped. Its task may not be ``asked``
    for."""
    lacking = _lacking(cell, opened)
    unasked = "train" in cell.task.needs and not asked
    data = attempt(shelf.identity, cell.dataset, [] if lacking or unasked else training_splits(cell))
    if isinstance(data, ClipevalError):
        return cell, data
    cell = replace(cell, data=data)
    if lacking:
        advice = _NAMELESS if lacking == [_NEED_WORDS["prompts"]] else ""
        return replace(cell, state="skipped", reason=f"{cell.dataset} has no {' and no '.join(lacking)}{advice}"), None
    if unasked:
        word = cell.task.short or cell.task.name
        reason = f"{cell.task.name} trains on the data, which has to be asked for: -t {word}"
        return replace(cell, state="skipped", reason=reason), None
    return cell, None


def _of_checkpoint(
    cell: Cell,
    unread: ClipevalError | None,
    spec: ModelSpec,
    checkpoint: Opened | ClipevalError,
    *,
    dry: bool,
    offline: bool,
) -> Cell:
    """The cell of one checkpoint, and whether what is known of that and of the data allows it to be measured."""
    if isinstance(checkpoint, ClipevalError):
        cell = replace(cell, model=spec)
    else:
        cell = replace(cell, model=replace(spec, commit=checkpoint.revision), checkpoint=checkpoint.identity)
    errors = [found for found in (checkpoint, unread) if isinstance(found, ClipevalError)]
    if cell.state == "skipped" or not errors:
        return cell
    cell = _absent(cell, errors if dry else errors[:1], dry)
    fetchable = dry and not offline and cell.state == "missing" and all(map(_is_not_here, errors))
    return replace(cell, to_download=fetchable)


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

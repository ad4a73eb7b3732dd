"""From what was asked for to an ordered list of cells, each with its state and cost. A run executes exactly this."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from clipeval import datasets, models
from clipeval.config import Config, DatasetEntry
from clipeval.datasets.base import Dataset
from clipeval.errors import ClipevalError, ModelError, UsageError, counted, is_not_here
from clipeval.evaluation.cell import Cell, training_splits
from clipeval.evaluation.failures import InternalError, attempt
from clipeval.evaluation.history import History
from clipeval.evaluation.keeping import Keeping
from clipeval.evaluation.outline import variants
from clipeval.evaluation.reasons import on_sets, together
from clipeval.evaluation.request import Request
from clipeval.evaluation.shelf import Shelf
from clipeval.evaluation.words import require_metrics, require_tasks
from clipeval.models import ModelSpec
from clipeval.models.base import ModelInfo
from clipeval.remote import copies, hub, later
from clipeval.remote.later import Later
from clipeval.results import suites
from clipeval.results.ledger import Ledger
from clipeval.results.schema import COLUMNS, misfit
from clipeval.tasks import TASKS, TaskSpec, load_task, named

if TYPE_CHECKING:
    from clipeval.models.opened import Opened


class Plan:
    """All cells of a run in the order of execution, and the objects they refer to.

    Data sets whose files are not on this machine yet are ``coming``: their cells are here once they have ``arrived``.
    """

    def __init__(
        self,
        request: Request,
        ledger: Ledger,
        specs: Sequence[ModelSpec],
        selection: datasets.Selection,
        tasks: Sequence[TaskSpec],
        *,
        dry: bool,
        told: Callable[[str], None],
    ) -> None:
        """``told`` hears of what takes long, when it begins."""
        self.request = request
        self._specs, self._tasks, self._dry = specs, tasks, dry
        options = request.options
        told("loading open_clip")
        self._found = {spec.name: attempt(_identified, spec, options.offline or dry) for spec in specs}
        self.checkpoints = {name: found for name, found in self._found.items() if not isinstance(found, ClipevalError)}
        """Those that can be read, by name."""
        self._shelf = Shelf(selection.datasets, options.offline or dry or not self.checkpoints)
        self._suites = selection.suites
        self.meant = selection.notes
        """What words of the command line were taken to mean, a sentence each."""
        self._history = History(ledger, self._found, self._shelf)
        self._cells: dict[str, list[Cell]] = {}
        """By data set, those of every checkpoint."""
        self._keeping: dict[str, Keeping] = {}
        self.coming: dict[str, list[Later]] = {}
        """The files that are to be fetched, by data set."""
        self.expected = 0
        """The cells that ``coming`` data sets will bring, as far as it can be known."""
        self._told: set[str] = set()
        for name in selection.datasets:
            told(f"opening {name}")
            with later.noting(not self._shelf.offline) as missing:
                asked = self._asked(name)
            if not self._shelf.offline and any(is_not_here(error) for _, error in asked):
                self.coming[name] = missing
                self.expected += len(asked) * len(specs)
            else:
                self._cells[name] = self._of_checkpoints(name, asked)

    def arrived(self, name: str) -> list[Cell]:
        """Open a data set that was ``coming``, whose files are here now, or are fetched now; its cells."""
        del self.coming[name]
        self._shelf.forget_errors(name)
        asked = self._asked(name)
        self.expected -= len(asked) * len(self._specs)
        self._cells[name] = self._of_checkpoints(name, asked)
        return self._cells[name]

    @property
    def cells(self) -> tuple[Cell, ...]:
        """All that are known: checkpoint by checkpoint, in the order in which both were asked for."""
        places = {name: place for place, name in enumerate(self._shelf.entries)}
        of_sets = [cell for name in sorted(self._cells, key=places.__getitem__) for cell in self._cells[name]]
        order = {spec.name: place for place, spec in enumerate(self._specs)}
        return tuple(sorted(of_sets, key=lambda cell: order[cell.model.name]))

    def dataset(self, name: str) -> Dataset | None:
        """A data set that is here and can be read: the split that is scored."""
        found = self._shelf.open(name) if name in self._cells else None
        return found if isinstance(found, Dataset) else None

    def splits(self) -> dict[tuple[str, str], Dataset]:
        """All that are open, by data set and split: those that are scored and those that are trained on."""
        return self._shelf.opened()

    def pixels_bytes(self, cell: Cell) -> int | None:
        """What the pixels that a cell reads will take in the cache, None where that is not known."""
        return self._keeping[cell.dataset].bytes(cell)

    @property
    def suites(self) -> list[suites.SuiteRequest]:
        """The averages that are asked for."""
        tasks = {cell.task for cells in self._cells.values() for cell in cells}
        return list(_averages(self.request.config, self._suites, tasks))

    def summary(self) -> str:
        """How much there is to do and to fetch, a line."""
        models, sets, cells = len(self._specs), len(self._shelf.entries), len(self.cells) + self.expected
        done = sum(cell.state == "done" for cell in self.cells)
        line = f"checkpoints: {models}, data sets: {sets}, cells: {cells}, done: {done}"
        if not self.coming:
            return line
        sizes = [file.size for files in self.coming.values() for file in files]
        known = sum(size for size in sizes if size is not None)
        more = "more than " if None in sizes else ""
        size = f", {more}{known / 1e6:,.0f} MB" if known else ""
        return f"{line}; to be fetched meanwhile: {counted(len(self.coming), 'data set')}{size}"

    def news(self) -> list[str]:
        """What a person should know of it and was not told yet, each a line."""
        of_splits = [f"{name}: {line}" for name, split in self.splits() for line in self._shelf.remarks(name, split)]
        of_checkpoints = [
            f"{name}: {sentence}" for name, found in self.checkpoints.items() for sentence in found.remarks
        ]
        absent = [(cell.reason, cell.dataset) for cell in self.cells if cell.state == "missing"]
        single = {reason for reason, _ in absent}
        missing = [
            f"missing: {'' if reason in single else f'{on_sets(names)}: '}{reason}"
            for reason, names in together(absent)
        ]
        lines = dict.fromkeys([*missing, *self._history.notes(), *of_splits, *of_checkpoints])
        new = [line for line in lines if line not in self._told]
        self._told.update(new)
        return new

    def remarks(self, cell: Cell) -> list[str]:
        """Sentences on the checkpoint and the splits of a cell, for its rows. They decide nothing."""
        opened = self.checkpoints.get(cell.model.name)
        found = [*opened.remarks] if opened else []
        for split in (cell.entry.split, *training_splits(cell)):
            found += self._shelf.remarks(cell.dataset, split)
        return found

    def infos(self) -> list[ModelInfo]:
        """What is known of each checkpoint."""
        return [self.info(spec) for spec in self._specs]

    def info(self, model: ModelSpec) -> ModelInfo:
        """The facts of a checkpoint; of one that cannot be read only what its spec says."""
        if found := self.checkpoints.get(model.name):
            return found.info
        return ModelInfo(model.name, model.arch, model.pretrained)

    def _asked(self, name: str) -> list[tuple[Cell, ClipevalError | None]]:
        return list(_on_data_set(name, self._specs[0], self._shelf, self._tasks, self.request))

    def _of_checkpoints(self, name: str, asked: list[tuple[Cell, ClipevalError | None]]) -> list[Cell]:
        options = self.request.options
        cells = [
            _of_checkpoint(*found, spec, self._found[spec.name], dry=self._dry, offline=options.offline)
            for spec in self._specs
            for found in asked
        ]
        cells = [self._history.compared(cell, options.rerun) for cell in cells]
        ahead = ("to do", "missing") if self._dry else ("to do",)
        keeping = Keeping([cell for cell in cells if cell.state in ahead], self.checkpoints, self._shelf)
        self._keeping[name] = keeping
        return [replace(cell, keeps=keeping.splits(cell)) for cell in cells]


def to_do(cells: Sequence[Cell]) -> list[Cell]:
    """The cells a run will measure, including those that will be tried although something is missing."""
    return [cell for cell in cells if cell.state != "done"]


def build(
    request: Request, ledger: Ledger, *, dry: bool = False, told: Callable[[str], None] = lambda text: None
) -> Plan:
    """Resolve every word, identify every checkpoint, open every data set that is here, and compare with the ledger.

    Large files are not fetched: the weights of a checkpoint come when it is measured, data sets are ``coming``. A
    ``dry`` build asks nobody; what is not on this machine gets the state ``missing``. Raises UsageError for words that
    name nothing. ``told`` hears of what takes long.
    """
    config, options = request.config, request.options
    specs = models.resolve(request.models, config, allow_python=options.allow_python)
    specs = [replace(spec, compiled=options.compile) for spec in specs]
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
    hub.begin()
    copies.begin()
    return Plan(request, ledger, specs, selection, tasks, dry=dry, told=told)


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
    name: str, anyone: ModelSpec, shelf: Shelf, tasks: Sequence[TaskSpec], request: Request
) -> Iterator[tuple[Cell, ClipevalError | None]]:
    """The cells of a data set, which are the same for ``anyone``, with what of it they read, and why it cannot be."""
    opened, entry, options = shelf.open(name), shelf.entries[name], request.options
    if isinstance(opened, Dataset) and opened.revision:
        entry = entry.model_copy(update={"revision": opened.revision})
    for task in tasks or _default_tasks(entry, opened):
        settings = None if task.extension else getattr(request.config.tasks, task.name, None)
        protocol = load_task(task).protocol(settings) if settings else "default"
        for shots, seed in variants(task, request.config, options.shots, options.seed):
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
    fetchable = dry and not offline and cell.state == "missing" and all(map(is_not_here, errors))
    return replace(cell, to_download=fetchable)


def _absent(cell: Cell, errors: list[ClipevalError], dry: bool) -> Cell:
    bug = next((error for error in errors if isinstance(error, InternalError)), None)
    reason = " ".join(str(error) for error in errors)
    absent = dry or all(map(is_not_here, errors))
    return replace(cell, state="missing" if absent and not bug else "failed", reason=reason, bug=bug)


_NEED_WORDS = {"prompts": "class names", "cues": "cues with candidate images", "train": "training split"}
_NAMELESS = ": give them in classnames.txt or under prompts: in benchmarks.yaml, or ask for what needs none: -t probe"


def _lacking(cell: Cell, dataset: Dataset | ClipevalError) -> list[str]:
    """What the task needs and the data set does not have, for people."""
    if isinstance(dataset, ClipevalError):
        return []
    contents = datasets.capabilities(dataset) | ({"train"} if cell.entry.train_split else set())
    return [_NEED_WORDS.get(need, need) for need in cell.task.needs if need not in contents]

"""Who is given what, whatever the workers are: crews that do nothing but answer."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import pytest

from clipeval.console import RunProgress
from clipeval.errors import DataError, MeasureError
from clipeval.evaluation.crew import Answered, Lost, Machine, Started, Told
from clipeval.evaluation.dispatch import Dispatcher
from clipeval.evaluation.failures import Elsewhere, OutOfMemory
from clipeval.evaluation.workbench import Measured
from clipeval.results import provenance


def cell(model: str, dataset: str = "birds", task: str = "probe"):
    label = f"{model} {dataset} {task}"
    entry = SimpleNamespace(split="test")
    return SimpleNamespace(model=SimpleNamespace(name=model), dataset=dataset, entry=entry, label=label, limit=None)


CELLS = [cell("a"), cell("a", "pairs"), cell("b"), cell("b", "pairs")]
SAME = Machine("host", provenance.sources(), provenance.packages())


def lacks(kind: str, name: str) -> Elsewhere:
    error = Elsewhere(f"does not have the {kind} {name} as it was planned: no such file.")
    error.what = kind, name
    return error


@dataclass
class Hands:
    """A crew whose nodes answer with what ``answers[node](unit)`` gives; workers come one after the other."""

    answers: dict
    machines: dict = field(default_factory=dict)
    events: list = field(default_factory=list)
    given: list = field(default_factory=list)
    closed: list = field(default_factory=list)
    seats: dict = field(default_factory=dict)

    @property
    def asked(self) -> int:
        return len(self.seats) or len(set(self.answers) - set(self.closed))

    def staff(self, most: int) -> None:
        for node in self.answers:
            if node not in self.closed and node not in self.seats.values():
                seat = max(self.seats, default=-1) + 1
                self.seats[seat] = node
                self.events.append(Started(seat, node, f"{node} (10.0.0.1)", self.machines.get(node, SAME)))
                return

    def hand(self, seat: int, unit) -> None:
        node = self.seats[seat]
        self.given.append((node, unit.kind, unit.model, unit.cells[0].dataset))
        answer = self.answers[node](unit)
        if isinstance(answer, Lost):
            del self.seats[seat]
            self.events.append(replace(answer, seat=seat, node=node, where=node))
        else:
            self.events.append(Answered(seat, answer))

    def wait(self, seconds: float) -> list:
        found, self.events = self.events, []
        return found

    def dismiss(self, seat: int) -> None:
        self.seats.pop(seat, None)

    def close(self, node: str) -> None:
        self.closed.append(node)
        self.seats = {seat: other for seat, other in self.seats.items() if other != node}

    def summary(self, nodes) -> str:
        return f"{len(nodes)} workers"

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        pass


def done(unit):
    return Measured(None, {}) if unit.kind == "cell" else None


class Book:
    """A journal that keeps what became of the cells."""

    def __init__(self) -> None:
        self.finished: list[str] = []
        self.failed: dict[str, str] = {}

    def finish(self, cell, dataset, measured) -> None:
        self.finished.append(cell.label)

    def fail(self, cell, error) -> None:
        self.failed[cell.label] = str(error)


class Coming:
    """Data sets that come one by one, the first after so many looks."""

    def __init__(self, *batches, looks=3) -> None:
        self.batches, self.looks = list(batches), looks

    @property
    def pending(self) -> bool:
        return bool(self.batches)

    @property
    def is_here(self) -> bool:
        self.looks -= 1
        return self.pending and self.looks < 0

    def next(self) -> list:
        return self.batches.pop(0)


def execute(crew: Hands, cells=CELLS, coming=()) -> Book:
    book = Book()
    options = SimpleNamespace(batch_size=64)
    splits = {("birds", "test"): range(100), ("pairs", "test"): range(7), ("late", "test"): range(3_000)}
    plan = SimpleNamespace(splits=lambda: splits, request=SimpleNamespace(options=options))
    Dispatcher(plan, book, crew, RunProgress(len(cells))).execute(list(cells), Coming(*coming))
    expected = [*cells, *(cell for batch in coming for cell in batch)]
    assert sorted([*book.finished, *book.failed]) == sorted(cell.label for cell in expected), "each once"
    return book


def test_data_sets_that_come_during_the_run_are_measured_too():
    """In slices where they are long; of nothing at first as well."""
    late = [cell(model, "late") for model in "ab"]
    crew = Hands({"x": done, "y": done})
    assert not execute(crew, CELLS, [late, [cell("a", "late", "other")]]).failed
    slices = [what for what in crew.given if what[1:] == ("images", "a", "late")]
    assert len(slices) == 3 * 2
    assert not execute(Hands({"x": done}), [], [[], late]).failed


def test_a_machine_with_other_code_gets_no_work_and_is_named_once(capsys):
    name = "clipeval/tasks/zeroshot_classification.py"
    other = Machine("host", provenance.sources() | {name: "0" * 16}, provenance.packages())
    crew = Hands({"b": done, "a": done}, {"b": other})
    assert not execute(crew).failed
    assert {node for node, *_ in crew.given} == {"a"}
    said = capsys.readouterr().err
    assert said.count("b (10.0.0.1) has another clipeval (different: clipeval/tasks/zeroshot_classification.py). ") == 1


@pytest.mark.parametrize(
    ("name", "version", "differs"),
    [("numpy", "1.0", "numpy 1.0 and not "), ("torch", None, ""), ("surprise", "3", "surprise 3 and not none")],
)
def test_versions_that_decide_values(name, version, differs, capsys):
    """Of torch only the build is another one: that goes with the device, which rows name."""
    versions = dict(word.split("==") for word in provenance.packages().split())
    versions[name] = version or versions[name].partition("+")[0] + "+cu999"
    other = Machine("host", provenance.sources(), " ".join(f"{key}=={value}" for key, value in versions.items()))
    crew = Hands({"b": done, "a": done}, {"b": other})
    execute(crew)
    assert differs in capsys.readouterr().err
    assert ("b" in {node for node, *_ in crew.given}) == (not differs)


def test_without_any_machine_of_this_code_the_run_ends():
    other = Machine("host", {}, provenance.packages())
    with pytest.raises(MeasureError, match=r"no machine can do the work: b \(10.0.0.1\) has another clipeval"):
        execute(Hands({"b": done}, {"b": other}))


def test_what_a_machine_lacks_is_done_by_another_and_not_asked_for_again(capsys):
    def poor(unit):
        if unit.model == "b":
            return lacks("checkpoint", "b")
        return lacks("data set", "pairs") if unit.kind == "cell" and unit.cells[0].dataset == "pairs" else done(unit)

    crew = Hands({"poor": poor, "rich": done})
    assert not execute(crew, [cell("a", "pairs", "other"), *CELLS, cell("c", "pairs")]).failed
    in_vain = [
        what for what in crew.given if what[0] == "poor" and (what[2] == "b" or what[1:] == ("cell", "a", "pairs"))
    ]
    assert len(in_vain) <= 2
    said = capsys.readouterr().err
    assert said.count("poor (10.0.0.1) does not have the checkpoint b") <= 1


def test_a_machine_that_comes_late_does_what_those_before_lack():
    crew = Hands({"poor": lambda unit: lacks("checkpoint", "b") if unit.model == "b" else done(unit)})
    first = crew.hand

    def hand(seat, unit):
        if unit.model == "c":
            crew.answers["rich"] = done
        first(seat, unit)

    crew.hand = hand
    assert not execute(crew, [*CELLS, cell("c")]).failed


def test_what_no_machine_has_fails_with_their_names_when_all_else_is_done():
    def without(name):
        return lambda unit: lacks("checkpoint", "b") if unit.model == "b" else done(unit)

    book = execute(Hands({"poor": without("b"), "bare": without("b")}))
    assert list(book.failed) == ["b birds probe", "b pairs probe"]
    for node in ("poor", "bare"):
        assert (
            f"{node} (10.0.0.1) does not have the checkpoint b as it was planned: no such file."
            in book.failed["b birds probe"]
        )
    one = execute(Hands({"poor": lambda unit: lacks("data set", "birds") if unit.kind == "cell" else None}), CELLS[:1])
    assert "does not have the data set birds" in one.failed["a birds probe"]


@pytest.mark.parametrize("end", [OutOfMemory("full"), Lost(0, "", "", "killed")])
def test_a_checkpoint_that_ends_its_workers_is_given_up(end):
    crew = Hands({"a": lambda unit: end if unit.model == "b" else done(unit)})
    book = execute(crew)
    assert book.finished == ["a birds probe", "a pairs probe"]
    assert set(book.failed) == {"b birds probe", "b pairs probe"}
    assert all("3 workers died at b, the last one at: b · texts" in reason for reason in book.failed.values())


def test_work_is_not_to_blame_for_nodes_that_go(capsys):
    ends = iter([Lost(0, "", "", "gone", with_node=True)] * 5)
    crew = Hands({"a": lambda unit: next(ends, None) or done(unit)})
    assert not execute(crew).failed
    assert capsys.readouterr().err.count("a · texts: a (10.0.0.1) has gone. Others do it again.") == 5


def test_a_worker_that_cannot_start():
    crew = Hands({"a": done})
    crew.staff = lambda most: crew.events.append(Lost(0, "a", "a (10.0.0.1)", "no module named clipeval"))
    with pytest.raises(MeasureError, match=r"a \(10.0.0.1\) cannot run workers: no module named clipeval"):
        execute(crew)
    final = Hands({"a": done})
    final.staff = lambda most: (
        final.events.append(Lost(0, "a", "a", "no GPU", final=True)) if not final.closed else None
    )
    with pytest.raises(MeasureError, match="no GPU"):
        execute(final)


def test_an_error_of_a_cell_is_its_row_and_lines_of_the_crew_are_said(capsys):
    crew = Hands({"a": lambda unit: DataError("broken") if unit.kind == "cell" and unit.model == "a" else done(unit)})
    crew.events.append(Told("one moment"))
    book = execute(crew)
    assert book.failed == {"a birds probe": "broken", "a pairs probe": "broken"}
    said = capsys.readouterr().err
    assert "one moment" in said
    assert said.count("1 workers") == 1

"""What the process that holds Ray gives to whom; actors are stood in for by what notes how they are called."""

from __future__ import annotations

import queue
from concurrent.futures import Future
from types import SimpleNamespace

import pytest

from clipeval.evaluation.crew import Answered
from clipeval.evaluation.foreman import Foreman, _Seat
from clipeval.evaluation.request import Options
from clipeval.evaluation.schedule import Unit


def cell(model: str, dataset: str):
    return SimpleNamespace(model=SimpleNamespace(name=model), dataset=dataset)


class Actor:
    """Notes the calls; ``piece-K`` is the reference of what its K-th call made for others."""

    def __init__(self) -> None:
        self.calls: list[tuple] = []
        self.do = self

    def options(self, num_returns: int) -> Actor:
        assert num_returns == 2
        return self

    def remote(self, *arguments):
        self.calls.append(arguments)
        return SimpleNamespace(future=Future), f"piece-{len(self.calls)}"


@pytest.fixture
def foreman(tmp_path):
    """``foreman("one", "two")``: with a ready worker for each of these caches."""

    def with_caches(*caches: str):
        sent: list[object] = []
        found = Foreman(queue.SimpleQueue(), sent.append, Options(out=tmp_path, executor="ray"), {}, "/")
        found.sent = sent
        for number, cache in enumerate(caches):
            found._seats[number] = _Seat(Actor(), f"node {number}", {}, placed=True, ready=True, cache=cache)
        return found

    return with_caches


def hand(foreman, number: int, unit: Unit, answer: object = None):
    """The pieces that a worker is given, and whether what it makes is kept; then it has done it."""
    seat = foreman._seats[number]
    foreman._hand(number, unit)
    given, pieces, keep = seat.actor.calls[-1]
    assert given is unit
    foreman._answered(number, seat, answer)
    assert foreman.sent[-1] == Answered(number, answer)
    return pieces, keep


TEXTS = Unit("texts", (cell("a", "birds"), cell("a", "pairs")))
BIRDS, PAIRS = Unit("images", (cell("a", "birds"),), 0, 32), Unit("images", (cell("a", "pairs"),), 0, 32)
CELL = Unit("cell", (cell("a", "birds"),))


def test_a_worker_is_given_what_another_cache_has_of_its_cell_and_once(foreman):
    two = foreman("one", "two")
    assert hand(two, 0, TEXTS) == ([], True)
    assert hand(two, 0, BIRDS) == ([], True)
    assert hand(two, 0, PAIRS) == ([], True)
    assert hand(two, 1, BIRDS) == ([], True), "it embeds them itself"
    assert hand(two, 1, CELL, "measured") == (["piece-1", "piece-2"], False)
    assert hand(two, 1, CELL, "measured") == ([], False)
    assert hand(two, 0, CELL, "measured") == (["piece-1"], False), "the slice of the other one"


def test_nothing_is_kept_where_all_share_a_cache_or_nothing_was_made(foreman):
    alike = foreman("one", "one")
    assert hand(alike, 0, TEXTS) == ([], False)
    assert hand(alike, 1, CELL) == ([], False)
    two = foreman("one", "two")
    hand(two, 0, TEXTS, ValueError("broken"))
    assert hand(two, 1, CELL) == ([], False)


def test_pieces_of_a_checkpoint_that_nobody_holds_are_let_go(foreman):
    two = foreman("one", "two")
    hand(two, 0, TEXTS)
    assert len(two._kept) == 1
    other = Unit("texts", (cell("b", "birds"),))
    hand(two, 0, other)
    hand(two, 1, other)
    assert {kept.unit.model for kept in two._kept} == {"b"}
    assert hand(two, 1, CELL) == ([], False)

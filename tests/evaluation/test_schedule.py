"""Which unit a worker gets: order, stages, affinity and crashes, on cells without models or data."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from clipeval.evaluation.schedule import MOST_CRASHES, SLICE_BATCHES, Schedule, slices


def cell(model: str, dataset: str = "birds", task: str = "probe"):
    return SimpleNamespace(model=SimpleNamespace(name=model), dataset=dataset, label=f"{model} {dataset} {task}")


SIZES = {"birds": 100, "pairs": 7}
BATCH = 2
STEP = SLICE_BATCHES * BATCH


def drain(schedule: Schedule, held: str | None = None) -> list[str]:
    """One worker does everything, in order."""
    kinds = []
    while schedule.unfinished:
        unit = schedule.next(held, [])
        held = unit.model
        kinds.append((unit.model, unit.kind, unit.start, unit.stop))
        schedule.done(unit)
    return kinds


def test_slices_cover_every_image_once_at_multiples_of_the_batch():
    units = slices([cell("a"), cell("a", task="other"), cell("a", "pairs")], SIZES, BATCH)
    assert [(unit.start, unit.stop) for unit in units] == [(0, 32), (32, 64), (64, 96), (96, 100)]
    assert all(unit.start % BATCH == 0 for unit in units)


def test_one_worker_prepares_a_checkpoint_then_measures_it_then_takes_the_next():
    found = drain(Schedule([cell("a"), cell("a", "pairs"), cell("b", "pairs")], SIZES, BATCH))
    assert [(model, kind) for model, kind, *_ in found] == [
        ("a", "texts"), *[("a", "images")] * 4, ("a", "cell"), ("a", "cell"), ("b", "texts"), ("b", "cell"),
    ]  # fmt: skip


def test_cells_wait_for_all_preparation_and_not_for_each_other():
    schedule = Schedule([cell("a"), cell("a", "pairs")], SIZES, BATCH)
    preparation = [schedule.next(None, []) for _ in range(5)]
    assert schedule.next(None, []) is None
    for unit in preparation[1:]:
        schedule.done(unit)
    assert schedule.next(None, []) is None
    schedule.done(preparation[0])
    assert [schedule.next(None, []).kind for _ in range(2)] == ["cell", "cell"]
    assert schedule.next(None, []) is None
    assert schedule.unfinished


def test_a_worker_keeps_its_checkpoint_and_a_free_one_takes_another():
    schedule = Schedule([cell("a"), cell("b"), cell("c")], SIZES, BATCH)
    assert schedule.next("b", []).model == "b"
    assert schedule.next(None, ["a", "b"]).model == "c"
    assert schedule.next("b", ["a", "c"]).model == "b"
    assert schedule.next(None, ["a", "b", "c"]).model == "a"


def test_work_of_a_dead_worker_is_done_again():
    schedule = Schedule([cell("a", "pairs")], SIZES, BATCH)
    for _ in range(MOST_CRASHES - 1):
        assert schedule.crashed(schedule.next(None, [])) == []
    assert [kind for _, kind, *_ in drain(schedule)] == ["texts", "cell"]


@pytest.mark.parametrize("good", [0, 1])
def test_a_checkpoint_that_keeps_killing_workers_is_given_up_and_the_others_are_measured(good):
    """``good`` units of it succeed before it starts to kill."""
    bad_cells = [cell("a", "pairs"), cell("a", "pairs", "other")]
    schedule = Schedule([*bad_cells, cell("b", "pairs")], SIZES, BATCH)
    for _ in range(good):
        schedule.done(schedule.next("a", []))
    lost = []
    for _ in range(MOST_CRASHES):
        lost += schedule.crashed(schedule.next("a", ["b"]))
    assert sorted(cell.label for cell in lost) == sorted(cell.label for cell in bad_cells)
    assert [model for model, *_ in drain(schedule)] == ["b", "b"]


def test_giving_up_names_the_cells_that_wait():
    schedule = Schedule([cell("a"), cell("b")], SIZES, BATCH)
    texts = schedule.next("a", [])
    schedule.done(texts)
    assert [cell.label for cell in schedule.give_up("a")] == ["a birds probe"]
    assert {model for model, *_ in drain(schedule)} == {"b"}

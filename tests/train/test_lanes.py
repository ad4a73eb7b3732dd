"""Lanes: ranks read shards of their own, and the stream is the same for any number of ranks."""

import pickle

import numpy as np
import pytest
from tiny_run import tiny_config

from clipeval.errors import UsageError
from clipeval_train.config import parse_pretrain
from clipeval_train.input import order as order_module
from clipeval_train.input.lanes import Lanes
from clipeval_train.input.order import Order


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(order_module, "_BLOCK", 1)  # then 8 batches decide


def sizes(seed, count, largest):
    return np.random.default_rng(seed).integers(1, largest + 1, count)


TWO = [sizes(1, 60, 23), sizes(2, 40, 31)]
BATCH, LANES, WEIGHTS = 24, 6, [3.0, 1.0]


def lanes_of(positions, batch, lanes):
    return positions % batch // (batch // lanes)


def test_one_lane_is_an_order(small_blocks):
    plain, one = Order(TWO, WEIGHTS, 10, 3), Lanes(TWO, WEIGHTS, 10, 3, 1)
    assert (one.take(0, 5000) == plain.take(0, 5000)).all()
    assert (one.substitutes(17) == plain.substitutes(17)).all()


@pytest.mark.parametrize("lanes", [2, 3, 4, 12])
def test_each_lane_goes_through_its_own_part_of_a_source_in_passes(small_blocks, lanes):
    total = int(TWO[0].sum())
    stream = Lanes(TWO[:1], [1.0], BATCH, 5, lanes).take(0, 6 * total)
    lane = lanes_of(np.arange(len(stream)), BATCH, lanes)
    parts = [set(stream[lane == number].tolist()) for number in range(lanes)]
    assert sum(map(len, parts)) == len(set.union(*parts)) == total
    assert {len(part) for part in parts} <= {total // lanes, total // lanes + 1}
    for number, part in enumerate(parts):
        mine = stream[lane == number]
        passes = mine[: len(mine) // len(part) * len(part)].reshape(-1, len(part))
        assert len(passes) >= 5
        assert (np.sort(passes, axis=1) == sorted(part)).all()


@pytest.mark.parametrize("lanes", [1, 2, 6, 8])
def test_no_window_of_a_batch_holds_a_sample_twice_and_sources_have_their_shares(small_blocks, lanes):
    stream = Lanes(TWO, WEIGHTS, BATCH, 0, lanes).take(0, 24_000)
    for start in range(len(stream) - BATCH + 1):
        assert len(set(stream[start : start + BATCH].tolist())) == BATCH
    assert (stream < TWO[0].sum()).sum() == 18_000


def test_a_stretch_does_not_depend_on_how_it_is_asked_for(small_blocks):
    whole = Lanes(TWO, WEIGHTS, BATCH, 0, LANES).take(0, 3000)
    other = pickle.loads(pickle.dumps(Lanes(TWO, WEIGHTS, BATCH, 0, LANES)))
    pieces = [other.take(start, min(start + 37, 3000)) for start in range(0, 3000, 37)]
    assert (np.concatenate(pieces) == whole).all()
    assert len(other.take(5, 5)) == 0


def test_substitutes_are_of_the_same_lane_and_never_meet_in_a_batch(small_blocks):
    order = Lanes(TWO, WEIGHTS, BATCH, 1, 3)
    stream = order.take(0, 3000)
    lane = lanes_of(np.arange(3000), BATCH, 3)
    lane_of_key = dict(zip(stream.tolist(), lane.tolist(), strict=True))
    bad = np.random.default_rng(4).random(int(sum(map(np.sum, TWO)))) < 0.1
    shown = stream.copy()
    for position in np.flatnonzero(bad[stream]):
        shown[position] = next(key for key in order.substitutes(int(position)) if not bad[key])
        assert lane_of_key[int(shown[position])] == lane[position]
    for start in range(len(shown) - BATCH + 1):
        assert len(set(shown[start : start + BATCH].tolist())) == BATCH


@pytest.mark.parametrize("world_size", [1, 2, 3, 6])
def test_a_rank_is_told_the_units_of_its_lanes_before_it_needs_them(small_blocks, world_size):
    order = Lanes(TWO, WEIGHTS, BATCH, 2, LANES)
    first, last = 40 * BATCH, 160 * BATCH
    stream = order.take(0, last)
    unit_of = np.concatenate([np.repeat(np.arange(len(one)), one) for one in TWO])
    border, share = int(TWO[0].sum()), BATCH // world_size
    needed_by = []
    for rank in range(world_size):
        needed = set()
        for source in range(2):
            told = list(order.units(source, first, last, BATCH, rank, world_size))
            assert [position for position, _ in told] == sorted(position for position, _ in told)
            known = {}
            for position, unit in told:
                known.setdefault(unit, position)
            for start in range(first, last, BATCH):
                mine = stream[start + rank * share : start + (rank + 1) * share]
                mine = mine[(mine >= border) == (source == 1)]
                for unit in unit_of[mine].tolist():
                    assert known[unit] <= start
                    needed.add((source, unit))
            assert set(known) <= {unit for s, unit in needed if s == source} | {unit for _, unit in told[-40:]}
        needed_by.append(needed)
    shared = sum(map(len, needed_by)) - len(set.union(*needed_by))
    assert shared <= 2 * (world_size - 1), "at most the unit on each border, of each source"


def test_ranks_without_lanes_of_their_own_are_told_of_all(small_blocks):
    order = Lanes(TWO, WEIGHTS, BATCH, 2, LANES)

    def told(start, batch, rank, world_size):
        return {unit for _, unit in order.units(0, start, 9 * BATCH, batch, rank, world_size)}

    everything = told(0, BATCH, 0, 1)
    assert told(0, BATCH, 0, 4) == everything  # 6 lanes, 4 ranks
    assert told(0, 12, 0, 2) == everything  # another batch
    assert told(0, BATCH, 0, 2) < everything
    assert told(5, BATCH, 0, 2) == told(5, BATCH, 1, 2)  # from within a batch


def test_what_cannot_be_divided_is_said():
    with pytest.raises(UsageError, match="lanes: a batch of 10 samples cannot be divided equally among 4 lanes"):
        parse_pretrain(tiny_config("out", batch_size=10, lanes=4).model_dump(exclude_none=True), "run.yaml")
    with pytest.raises(UsageError, match=r"data\[0\]: 11 samples are too few for batch_size 3, .* in each of 4 lanes"):
        Lanes([np.array([45])], [1.0], 12, 0, 4)

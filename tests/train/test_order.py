"""The order of samples: a permutation per pass, in blocks, no repeats near each other, any stretch at any time."""

import hashlib
import pickle

import numpy as np
import pytest

from clipeval.errors import UsageError
from clipeval_train.input import order as order_module
from clipeval_train.input.order import Order


def one(size, batch, seed=0):
    return Order([np.array([size])], [1.0], batch, seed)


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(order_module, "_BLOCK", 1)  # then 8 batches decide


def units(seed, count, largest):
    return np.random.default_rng(seed).integers(1, largest + 1, count)


@pytest.mark.parametrize(("size", "batch"), [(28, 7), (29, 7), (101, 8), (1347, 64)])
def test_each_pass_holds_every_sample_once(size, batch):
    order = one(size, batch, seed=3).take(0, 5 * size).reshape(5, size)
    assert (np.sort(order, axis=1) == np.arange(size)).all()
    assert len({tuple(row) for row in order}) == 5


@pytest.mark.parametrize(("size", "batch"), [(28, 7), (29, 7), (101, 8)])
@pytest.mark.parametrize("seed", range(5))
def test_no_window_of_batch_size_holds_a_sample_twice(size, batch, seed):
    assert_no_repeats(one(size, batch, seed).take(0, 20 * size), batch)


def assert_no_repeats(order, batch):
    for start in range(len(order) - batch + 1):
        assert len(set(order[start : start + batch].tolist())) == batch


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("count", "largest", "batch"), [(40, 30, 7), (9, 70, 5), (300, 2, 4), (3, 400, 8)])
def test_blocks_hold_whole_units_and_passes_hold_every_sample_once(small_blocks, seed, count, largest, batch):
    sizes = units(seed, count, largest) + (60 if count < 4 else 0)
    order = Order([sizes], [1.0], batch, seed)
    total = int(sizes.sum())
    stream = order.take(0, 6 * total)
    assert (np.sort(stream.reshape(6, total), axis=1) == np.arange(total)).all()
    assert_no_repeats(stream, batch)
    unit_of = np.repeat(np.arange(count), sizes)
    blocks = list(order.blocks(0, 0, 6 * total))
    ends = [*(position for position, _ in blocks[1:]), 6 * total]
    seen = []
    for (begin, members), end in zip(blocks, ends, strict=True):
        assert set(unit_of[stream[begin:end]].tolist()) == set(members.tolist())
        assert end - begin == sizes[members].sum() >= min(8 * batch, total)
        seen += members.tolist()
    assert sorted(seen) == sorted([*range(count)] * 6)  # a unit is read once per pass
    middle = total + total // 3
    rest = [(max(begin, middle), m.tolist()) for (begin, m), end in zip(blocks, ends, strict=True) if end > middle]
    assert [(position, m.tolist()) for position, m in order.blocks(0, middle, 6 * total)] == rest


def test_blocks_of_a_source_among_others_begin_where_its_samples_do(small_blocks):
    sizes = [units(1, 30, 20), units(2, 40, 9), np.array([150])]
    order = Order(sizes, [1.0, 0.3, 2.0], 5, seed=9)
    stream = order.take(0, 9000)
    offsets = np.cumsum([0, *(s.sum() for s in sizes)])
    for s, mine in enumerate(sizes):
        where = np.flatnonzero((stream >= offsets[s]) & (stream < offsets[s + 1]))
        unit_of = np.repeat(np.arange(len(mine)), mine)[stream[where] - offsets[s]]
        blocks = list(order.blocks(s, 100, 9000))
        ends = [*(position for position, _ in blocks[1:]), 9000]
        for (begin, members), end in zip(blocks, ends, strict=True):
            assert begin in where
            here = unit_of[(where >= begin) & (where < end)]
            assert set(here.tolist()) <= set(members.tolist())


def test_a_stretch_does_not_depend_on_how_it_is_asked_for(small_blocks):
    def fresh():
        return Order([units(0, 10, 9), units(1, 9, 13), np.array([33])], [1.0, 0.3, 2.0], 5, seed=5)

    whole = fresh().take(0, 3000)
    order = pickle.loads(pickle.dumps(fresh()))
    pieces = [order.take(start, min(start + 137, 3000)) for start in range(0, 3000, 137)]
    assert (np.concatenate(pieces) == whole).all()
    assert (fresh().take(2500, 2600) == whole[2500:2600]).all()


def test_sources_come_in_proportion_to_their_weights_and_each_in_passes():
    sizes, weights = [50, 40, 70], [1.0, 0.5, 2.5]
    order = Order([np.array([size]) for size in sizes], weights, 10, seed=1).take(0, 8000)
    borders = np.cumsum([0, *sizes])
    for s, weight in enumerate(weights):
        mine = order[(order >= borders[s]) & (order < borders[s + 1])]
        assert len(mine) == 8000 * weight / 4
        passes = mine[: len(mine) // sizes[s] * sizes[s]].reshape(-1, sizes[s])
        assert (np.sort(passes, axis=1) == np.arange(borders[s], borders[s + 1])).all()
    assert_no_repeats(order, 10)


def test_weights_that_are_no_multiples_are_rounded_to_the_whole_cycle():
    order = Order([np.array([100])] * 3, [1.0, 1.0, 1.0], 4, seed=0).take(0, 1000)
    assert sorted(np.bincount(order // 100)) == [333, 333, 334]


def test_seeds_give_other_orders():
    assert (one(50, 4, 0).take(0, 50) != one(50, 4, 1).take(0, 50)).any()


@pytest.mark.parametrize("seed", range(4))
def test_substitutes_never_meet_in_a_batch(small_blocks, seed):
    """Whatever samples turn out bad, replacing them by their first substitutes leaves every batch without repeats."""
    batch = 6
    sizes = [units(seed, 12, 40), np.array([200])]
    order = Order(sizes, [1.0, 0.5], batch, seed)
    stream = order.take(0, 2000)
    bad = np.random.default_rng(seed).random(int(sum(s.sum() for s in sizes))) < 0.2
    offset = int(sizes[0].sum())
    shown = stream.copy()
    for position in np.flatnonzero(bad[stream]):
        usable = [key for key in order.substitutes(int(position)) if not bad[key]]
        assert usable
        shown[position] = usable[0]
        assert (usable[0] < offset) == (stream[position] < offset)  # of the same source
    assert not bad[shown].any()
    assert_no_repeats(shown, batch)


def test_substitutes_come_from_the_shards_at_hand(small_blocks):
    sizes = units(3, 60, 20)
    order = Order([sizes], [1.0], 6, seed=2)
    unit_of = np.repeat(np.arange(60), sizes)
    blocks = list(order.blocks(0, 0, int(sizes.sum())))
    assert len(blocks) > 5
    for position, members in blocks:
        assert set(unit_of[order.substitutes(position + 1)].tolist()) <= set(members.tolist())


def test_a_billion_samples_take_no_more_memory_than_a_block():
    order = Order([np.full(100_000, 10_000)], [1.0], 32_768, seed=0)
    keys = order.take(3_141_592_653, 3_141_592_653 + 32_768)
    assert len(set(keys.tolist())) == 32_768
    assert len(set((keys // 10_000).tolist())) == 27  # 8 batches in whole shards of 10,000


def test_a_source_smaller_than_four_batches_is_refused():
    with pytest.raises(UsageError, match=r"data\[1\]: 27 samples are too few for batch_size 7, .* at least 28"):
        Order([np.array([28]), np.array([27])], [1.0, 1.0], 7, seed=0)


def most_in_a_window(order, size, batch):
    """Of the second source, counted one window after the other over two cycles and a batch."""
    stream = order.take(0, 2000 + batch) >= size
    return max(int(stream[start : start + batch].sum()) for start in range(2000))


@pytest.mark.parametrize(("batch", "weight"), [(64, 0.05), (7, 0.001), (1500, 0.01), (2000, 0.05)])
@pytest.mark.parametrize("seed", range(3))
def test_a_source_of_small_weight_may_be_small(small_blocks, batch, weight, seed):
    """4 times as many as a batch can have of it suffice, and none less."""
    large = 5 * batch
    weights = [1 - weight, weight]
    most = most_in_a_window(Order([np.array([large])] * 2, weights, batch, seed), large, batch)
    assert most < batch
    sizes = [np.array([large]), np.array([2 * most, 2 * most])]
    order = Order(sizes, weights, batch, seed)
    cycles = max(2, -(-13 * most // round(1000 * weight)))
    stream = order.take(0, 1000 * cycles)
    mine = stream[stream >= large]
    passes = mine[: len(mine) // (4 * most) * (4 * most)].reshape(-1, 4 * most)
    assert len(passes) >= 3
    assert (np.sort(passes, axis=1) == large + np.arange(4 * most)).all()
    last = {}
    for position, key in enumerate(stream.tolist()):
        assert position - last.get(key, -batch) >= batch
        last[key] = position
    with pytest.raises(UsageError, match=rf"data\[1\]: {4 * most - 1} samples .* up to {most} come from here"):
        Order([sizes[0], np.array([2 * most, 2 * most - 1])], weights, batch, seed)


def test_substitutes_of_a_small_source_never_meet_in_a_batch(small_blocks):
    batch, weights = 64, [0.9, 0.1]
    most = most_in_a_window(Order([np.array([600])] * 2, weights, batch, 3), 600, batch)
    order = Order([np.array([600]), np.array([6 * most])], weights, batch, 3)
    assert 6 * most < 4 * batch
    stream = order.take(0, 4000)
    bad = np.random.default_rng(1).random(600 + 6 * most) < 0.1
    shown = stream.copy()
    for position in np.flatnonzero(bad[stream] & (stream >= 600)):
        shown[position] = next(key for key in order.substitutes(int(position)) if not bad[key])
        assert shown[position] >= 600
    assert (shown != stream).sum() > 20
    assert_no_repeats(shown, batch)


def test_the_order_of_earlier_runs_stays():
    """Digest of a stream as it was before sources of small weight could be small."""
    order = Order([units(1, 30, 20), units(2, 40, 9), np.array([150])], [1.0, 0.3, 2.0], 5, seed=9)
    assert (
        hashlib.sha256(order.take(0, 9000).tobytes()).hexdigest()
        == "7196daec9d912506d73f9a1d02f8a18c9032502cdc618179f87ed17935fac098"
    )


def test_a_weight_that_rounds_to_nothing_is_refused():
    with pytest.raises(UsageError, match=r"data\[1\].weight: 0.0001 is less than 1/1000"):
        Order([np.array([100])] * 2, [1.0, 0.0001], 4, seed=0)

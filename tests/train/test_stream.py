"""The order of samples: a permutation per pass, no repeats near each other, any stretch at any time."""

import numpy as np
import pytest

from clipeval.errors import UsageError
from clipeval_train.stream import Stream


@pytest.mark.parametrize(("size", "batch"), [(28, 7), (29, 7), (101, 8), (1347, 64)])
def test_each_pass_holds_every_sample_once(size, batch):
    stream = Stream([size], [1.0], batch, seed=3)
    order = stream.take(0, 5 * size).reshape(5, size)
    assert (np.sort(order, axis=1) == np.arange(size)).all()
    assert len({tuple(row) for row in order}) == 5


@pytest.mark.parametrize(("size", "batch"), [(28, 7), (29, 7), (101, 8)])
@pytest.mark.parametrize("seed", range(5))
def test_no_window_of_batch_size_holds_a_sample_twice(size, batch, seed):
    order = Stream([size], [1.0], batch, seed).take(0, 20 * size)
    for start in range(len(order) - batch):
        assert len(set(order[start : start + batch])) == batch


def test_a_stretch_does_not_depend_on_how_it_is_asked_for():
    def fresh():
        return Stream([40, 61, 33], [1.0, 0.3, 2.0], 8, seed=5)

    whole = fresh().take(0, 3000)
    stream = fresh()
    pieces = [stream.take(start, min(start + 137, 3000)) for start in range(0, 3000, 137)]
    assert (np.concatenate(pieces) == whole).all()
    assert (fresh().take(2500, 2600) == whole[2500:2600]).all()


def test_sources_come_in_proportion_to_their_weights_and_each_in_passes():
    sizes, weights = [50, 40, 70], [1.0, 0.5, 2.5]
    order = Stream(sizes, weights, 10, seed=1).take(0, 8000)
    borders = np.cumsum([0, *sizes])
    for s, weight in enumerate(weights):
        mine = order[(order >= borders[s]) & (order < borders[s + 1])]
        assert len(mine) == 8000 * weight / 4
        passes = mine[: len(mine) // sizes[s] * sizes[s]].reshape(-1, sizes[s])
        assert (np.sort(passes, axis=1) == np.arange(borders[s], borders[s + 1])).all()
    assert all(len(set(order[i : i + 10])) == 10 for i in range(len(order) - 10))


def test_weights_that_are_no_multiples_are_rounded_to_the_whole_cycle():
    order = Stream([100, 100, 100], [1.0, 1.0, 1.0], 4, seed=0).take(0, 1000)
    assert sorted(np.bincount(order // 100)) == [333, 333, 334]


def test_seeds_give_other_orders():
    first, second = (Stream([50], [1.0], 4, seed).take(0, 50) for seed in (0, 1))
    assert (first != second).any()


def test_a_source_smaller_than_four_batches_is_refused():
    with pytest.raises(UsageError, match=r"data\[1\]: 27 samples are too few for batch_size 7: at least 28"):
        Stream([28, 27], [1.0, 1.0], 7, seed=0)


def test_a_weight_that_rounds_to_nothing_is_refused():
    with pytest.raises(UsageError, match=r"data\[1\].weight: 0.0001 is less than 1/1000"):
        Stream([100, 100], [1.0, 0.0001], 4, seed=0)

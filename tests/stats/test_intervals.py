import numpy as np
import pytest
from scipy import stats as scipy_stats

from clipeval.stats import intervals as stats


def test_wilson_by_hand():
    # 8 of 10: (0.8 + z^2/20 -+ z sqrt(0.16/10 + z^2/400)) / (1 + z^2/10) with z = 1.959964
    assert stats.wilson_interval(8, 10) == pytest.approx((0.4901624715, 0.9433178485), abs=1e-9)
    assert stats.wilson_interval(0, 4) == pytest.approx((0.0, 3.8414588207 / 7.8414588207), abs=1e-9)


@pytest.mark.parametrize(("successes", "n"), [(0, 1), (1, 1), (1, 3), (17, 41), (999, 1000), (50000, 50000)])
def test_wilson_is_scipys(successes, n):
    oracle = scipy_stats.binomtest(successes, n).proportion_ci(method="wilson")
    assert stats.wilson_interval(successes, n) == pytest.approx((oracle.low, oracle.high), abs=1e-12)


def test_balanced_interval_of_equal_classes_without_spread_is_wilsons():
    assert stats.balanced_interval(np.array([7.0, 7.0]), np.array([7, 7])) == stats.wilson_interval(14, 14)
    assert stats.balanced_interval(np.array([0.0, 0.0, 0.0]), np.array([5, 5, 5])) == stats.wilson_interval(0, 15)


def test_balanced_interval_by_hand():
    # p = 3/4; v = (1/2 * 1/2 / 3, 0); V = (1/12) / 4 = 1/48; n_eff = min(3/16 * 48 = 9, 4 / (1/4 + 1/2) = 16/3)
    assert stats.balanced_interval(np.array([2.0, 2.0]), np.array([4, 2])) == stats.wilson_interval(4, 16 / 3)
    # p = 1/2; v = 1/4 / 49 each; V = 1/392; n_eff = min(98, 100) = 98
    expected = stats.wilson_interval(49, 98)
    assert stats.balanced_interval(np.array([25.0, 25.0]), np.array([50, 50])) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("recalls", "counts", "at_least"),
    [
        (np.full(10, 0.8), np.full(10, 50), 0.93),
        (np.full(100, 0.9), np.full(100, 2), 0.93),
        (np.full(50, 0.7), np.full(50, 1), 0.93),
        (np.tile([0.2, 0.95], 10), np.tile([20, 7], 10), 0.93),
        (np.r_[0.9, np.full(20, 0.6)], np.r_[2000, np.full(20, 5)], 0.93),
        (np.array([0.97, 0.97]), np.array([300, 20]), 0.93),
        # all the spread is in five classes, of 5 and of 2 samples each: too few to estimate it well
        (np.r_[np.full(5, 0.5), np.full(95, 0.99)], np.r_[np.full(5, 5), np.full(95, 300)], 0.91),
        (np.r_[np.full(5, 0.5), np.full(95, 0.99)], np.r_[np.full(5, 2), np.full(95, 300)], 0.87),
    ],
)
def test_balanced_interval_covers(recalls, counts, at_least):
    rng = np.random.default_rng(0)
    draws = rng.binomial(counts, recalls, size=(800, len(counts))).astype(float)
    intervals = np.array([stats.balanced_interval(hits, counts) for hits in draws])
    covered = (intervals[:, 0] <= recalls.mean()) & (recalls.mean() <= intervals[:, 1])
    assert covered.mean() >= at_least


def test_bootstrap_weights_are_resamplings():
    chunks = list(stats.bootstrap_weights(1000, seed=3, draws=1500))
    assert len(chunks) > 1  # bounded memory
    weights = np.concatenate(chunks)
    assert weights.shape == (1500, 1000)
    assert (weights.sum(axis=1) == 1000).all()
    assert weights.mean(axis=0) == pytest.approx(np.ones(1000), abs=0.2)  # sd of each: sqrt(0.999 / 1500) = 0.026
    assert weights.var() == pytest.approx(0.999, abs=0.005)  # of a binomial(1000, 1/1000)
    assert (weights == np.concatenate(list(stats.bootstrap_weights(1000, seed=3, draws=1500)))).all()


def test_percentile_interval_leaves_nan_out():
    assert stats.percentile_interval(np.r_[np.arange(1001), np.nan]) == (25.0, 975.0)


def test_clustered_intervals_cover_where_wilson_does_not():
    """Five captions per image that mostly share their fate: the naive interval is far too narrow."""
    rng = np.random.default_rng(5)
    n_images, truth, trials = 200, 0.6, 300
    counts = np.full(n_images, 5)
    ease = rng.random((trials, n_images, 1))
    own = rng.random((trials, n_images, 5))
    hits = (np.where(rng.random((trials, n_images, 5)) < 0.7, ease, own) < truth).sum(axis=2).astype(float)
    clustered = np.array([stats.clustered_intervals(trial[:, None], counts, seed=0)[0] for trial in hits])
    naive = np.array([stats.wilson_interval(trial.sum(), 5 * n_images) for trial in hits])
    coverage = [((bounds[:, 0] <= truth) & (truth <= bounds[:, 1])).mean() for bounds in (clustered, naive)]
    assert coverage[0] >= 0.91
    assert coverage[1] <= 0.85


def test_clustered_intervals_equal_a_plain_bootstrap_loop():
    rng = np.random.default_rng(6)
    counts = rng.integers(1, 7, 31)
    hits = rng.binomial(counts[:, None], 0.4, (31, 2)).astype(float)
    (weights,) = stats.bootstrap_weights(31, seed=9)
    oracle = []
    for column in range(2):
        draws = []
        for row in weights.astype(int):
            images = np.repeat(np.arange(31), row)
            draws.append(hits[images, column].sum() / counts[images].sum())
        oracle.append(tuple(np.quantile(draws, (0.025, 0.975))))
    assert np.array(stats.clustered_intervals(hits, counts, seed=9)) == pytest.approx(np.array(oracle), abs=1e-12)


def test_clustered_intervals_of_equal_outcomes_stay_open():
    counts = np.array([3, 1, 2])
    intervals = stats.clustered_intervals(np.stack([counts, 0 * counts], axis=1).astype(float), counts, seed=0)
    assert intervals == [stats.wilson_interval(3, 3), stats.wilson_interval(0, 3)]

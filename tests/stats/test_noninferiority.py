"""Tests against a margin, beside a plain maximisation of the likelihood, closed forms, hand-worked sizes, and their
size on simulated outcomes."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import brentq, minimize_scalar
from scipy.stats import norm

from clipeval.stats import noninferiority
from clipeval.stats.significance import holm, mcnemar_p


def score(lost, won, n, margin):
    """Tango's score with the share won that is most likely under the hypothesis, found by search."""

    def surprise(q):
        shares = np.array([q + margin, q, 1 - 2 * q - margin])
        counts = np.array([lost, won, n - lost - won])
        return -np.sum(counts[counts > 0] * np.log(np.maximum(shares[counts > 0], 1e-300)))

    bounds = max(0.0, -margin), (1 - margin) / 2
    q = minimize_scalar(surprise, bounds=bounds, method="bounded", options={"xatol": 1e-12}).x
    return (lost - won - n * margin) / np.sqrt(n * (2 * q + margin - margin**2))


@pytest.mark.parametrize(
    ("lost", "won", "n"), [(30, 10, 101), (5, 9, 887), (0, 4, 57), (3, 0, 61), (1, 1, 3), (400, 350, 5001)]
)
@pytest.mark.parametrize("margin", [0.003, 0.01, 0.2, -0.01, -0.15])
def test_the_closed_form_is_the_most_likely(lost, won, n, margin):
    expected = score(lost, won, n, margin)
    assert noninferiority.score_z(lost, won, n, margin) == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_the_score_of_no_drop_is_mcnemars():
    assert noninferiority.score_z(30, 14, 101, 0) == pytest.approx(16 / np.sqrt(44))
    assert noninferiority.score_z(0, 0, 101, 0) == 0


def test_where_nothing_differs_by_hand():
    """Nothing is won, so q = 0: z = -sqrt(n M / (1 - M)); a drop of M is excluded from n = 1.645^2 (1 - M) / M on."""
    assert noninferiority.score_z(0, 0, 887, 0.01) == pytest.approx(-np.sqrt(887 * 0.01 / 0.99))
    assert noninferiority.drop_limit(0, 0, 267, 0.95) > 0.01 > noninferiority.drop_limit(0, 0, 268, 0.95)


def test_limits_are_where_the_score_is_at_its_quantile():
    for lost, won, n in ((30, 10, 101), (5, 40, 333), (0, 7, 50)):
        for level in (0.9, 0.95):
            high = brentq(lambda m, z, *c: score(*c, m) + z, -0.9, 0.9, args=(norm.ppf(level), lost, won, n))
            assert noninferiority.drop_limit(lost, won, n, level) == pytest.approx(high, abs=1e-5)
    both = noninferiority.drop_limit([30, 10], [10, 30], 101)
    assert both.tolist() == [noninferiority.drop_limit(30, 10, 101), noninferiority.drop_limit(10, 30, 101)]


def test_a_normal_drop_by_hand():
    # of 400, 40 lost and 20 won: drop .05, variance ((60 + 1) / 400 - .0025) / 400 = 3.75e-4
    variance = noninferiority.drop_variance(40, 20, 400)
    assert variance == pytest.approx(3.75e-4)
    assert noninferiority.normal_limit(0.05, variance) == pytest.approx(0.05 + 1.644854 * np.sqrt(3.75e-4), abs=1e-7)
    assert noninferiority.beyond(0.05, variance, 0.01) == pytest.approx(norm.sf(0.04 / np.sqrt(3.75e-4)))


@pytest.mark.parametrize(
    ("margin", "expected"),
    [
        (0.01, (1_713, 4_282, 8_564, 12_846)),
        (0.02, (429, 1_071, 2_141, 3_212)),
        (0.005, (6_852, 17_128, 34_256, 51_384)),
    ],
)
def test_outcomes_that_are_needed_by_hand(margin, expected):
    """(1.644854 + 1.281552)^2 = 8.563847 times the share that differs, by the square of the margin."""
    by_hand = [int(np.ceil(8.563847 * share / margin**2)) for share in (0.02, 0.05, 0.1, 0.15)]
    found = [int(np.ceil(noninferiority.times_as_many(share, margin))) for share in (0.02, 0.05, 0.1, 0.15)]
    assert tuple(by_hand) == tuple(found) == expected


def test_the_chance_to_pass_is_that_of_the_needed_outcomes():
    variance = 0.15 / 3240
    assert noninferiority.pass_chance(variance, 0.01) == pytest.approx(norm.cdf(0.01 / np.sqrt(variance) - 1.644854))
    assert round(float(noninferiority.pass_chance(variance, 0.01)), 2) == 0.43
    assert noninferiority.pass_chance(0.15 / 12_845.77, 0.01) == pytest.approx(0.9, abs=1e-5)
    assert 3240 * noninferiority.times_as_many(variance, 0.01) == pytest.approx(12_845.77, abs=0.01)


@pytest.mark.parametrize("n", [100, 360, 1000, 5000])
@pytest.mark.parametrize("share", [0.05, 0.15])
def test_size_of_both_tests_at_the_margin(n, share):
    """Of 40,000 pairs of checkpoints that differ by just what is allowed."""
    margin = 0.01
    kinds = [(share + margin) / 2, (share - margin) / 2, 1 - share]
    drawn = np.random.default_rng(n).multinomial(n, kinds, 40_000)
    z = noninferiority.score_z(drawn[:, 0], drawn[:, 1], n, margin)
    assert 0.03 <= np.mean(z < -1.644854) <= 0.07
    assert 0.03 <= np.mean(z > 1.644854) <= 0.07


def test_many_at_once_are_one_by_one():
    rng = np.random.default_rng(0)
    lost, won = rng.integers(0, 30, (2, 7, 5))
    together = noninferiority.score_z(lost, won, 99, 0.02)
    assert together.shape == (7, 5)
    assert together[3, 2] == noninferiority.score_z(lost[3, 2], won[3, 2], 99, 0.02)
    p = mcnemar_p(lost, won)
    assert p[6, 4] == mcnemar_p(lost[6, 4], won[6, 4])
    p[2, 1] = p[4] = np.nan
    assert holm(p) == pytest.approx(np.array([holm(line) for line in p]), nan_ok=True)

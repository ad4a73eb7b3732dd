"""Paired comparisons, against scipy's exact test and hand-worked intervals."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from clipeval.reporting.comparison import difference, paired_interval


def outcomes(hits, ids=None):
    return pd.Series(np.asarray(hits, float), index=[f"s{i}" for i in range(len(hits))] if ids is None else ids)


@pytest.mark.parametrize(
    ("only_a", "only_b", "both", "neither"), [(12, 3, 40, 5), (3, 12, 1, 1), (0, 0, 7, 2), (1, 0, 0, 0)]
)
def test_mcnemar(only_a, only_b, both, neither):
    a = outcomes([1] * only_a + [0] * only_b + [1] * both + [0] * neither)
    b = outcomes([0] * only_a + [1] * only_b + [1] * both + [0] * neither)
    found = difference(a, b, False)
    n = len(a)
    assert (found.only_a, found.only_b, found.n) == (only_a, only_b, n)
    assert found.value == pytest.approx((only_a - only_b) / n)
    expected = binomtest(only_a, only_a + only_b, 0.5).pvalue if only_a + only_b else 1.0
    assert found.p == pytest.approx(expected)
    assert found.low <= found.value <= found.high
    turned = difference(b, a, False)
    assert (turned.value, turned.low, turned.high) == pytest.approx((-found.value, -found.high, -found.low))


def test_interval_by_hand():
    # one more on either side: 13/62 - 4/62 = 9/62; variance (17/62 - (9/62)^2) / 62
    centre, half = 9 / 62, 1.959963984540054 * np.sqrt((17 / 62 - (9 / 62) ** 2) / 62)
    assert paired_interval(12, 3, 60) == pytest.approx((centre - half, centre + half))


def test_samples_are_matched_by_id():
    a, b = outcomes([1, 0, 1], ["x", "y", "z"]), outcomes([1, 1, 0], ["z", "x", "y"])
    assert difference(a, b, False).value == 0
    assert difference(a, outcomes([1, 1, 0], ["z", "x", "w"]), False) is None
    assert difference(a, outcomes([1, 1]), False) is None


def test_captions_of_one_image_are_resampled_together():
    # five equal captions per image carry the information of one: the interval is that of the images
    rng = np.random.default_rng(0)
    ids = [f"i{image}#{k}" for image in range(200) for k in range(5)]
    a, b = (np.repeat(rng.random(200) < p, 5) for p in (0.6, 0.5))
    found = difference(outcomes(a, ids), outcomes(b, ids), True)
    spread = np.std(a[::5].astype(float) - b[::5]) / np.sqrt(200)
    assert found.test == "bootstrap over images"
    assert found.high - found.low == pytest.approx(2 * 1.96 * spread, rel=0.1)
    independent = difference(outcomes(a), outcomes(b), False)
    assert found.high - found.low > 2 * (independent.high - independent.low)
    assert found.p > independent.p

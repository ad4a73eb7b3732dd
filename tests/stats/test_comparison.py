"""Two-sided comparisons as the page shows them, against scipy's exact test and hand-worked intervals."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from clipeval.stats.intervals import paired_interval
from clipeval.stats.paired import compare
from clipeval.stats.scored import OtherSamplesError, scored


def outcomes(hits, ids=None, captions=False):
    hits = np.asarray(hits, float)
    frame = pd.DataFrame({"id": [f"s{i}" for i in range(len(hits))] if ids is None else ids})
    if captions:
        frame = frame.assign(direction="text_to_image", **{"hit@5": hits})
        return scored("image_retrieval_recall@5", frame, hits.mean())
    return scored("acc1", frame.assign(correct=hits), hits.mean())


@pytest.mark.parametrize(
    ("only_a", "only_b", "both", "neither"), [(12, 3, 40, 5), (3, 12, 1, 1), (0, 0, 7, 2), (1, 0, 0, 0)]
)
def test_mcnemar(only_a, only_b, both, neither):
    a = outcomes([1] * only_a + [0] * only_b + [1] * both + [0] * neither)
    b = outcomes([0] * only_a + [1] * only_b + [1] * both + [0] * neither)
    found = compare(a, b)
    n = only_a + only_b + both + neither
    assert (found.lost, found.won, found.n) == (only_a, only_b, n)
    assert found.difference == pytest.approx((only_a - only_b) / n)
    expected = binomtest(only_a, only_a + only_b, 0.5).pvalue if only_a + only_b else 1.0
    assert found.p_two_sided == pytest.approx(expected)
    low, high = found.interval
    assert low <= found.difference <= high
    turned = compare(b, a)
    assert (turned.difference, *turned.interval) == pytest.approx((-found.difference, -high, -low))


def test_interval_by_hand():
    # one more on either side: 13/62 - 4/62 = 9/62; variance (17/62 - (9/62)^2) / 62
    centre, half = 9 / 62, 1.959963984540054 * np.sqrt((17 / 62 - (9 / 62) ** 2) / 62)
    assert paired_interval(12, 3, 60) == pytest.approx((centre - half, centre + half))


def test_samples_are_matched_by_id():
    a, b = outcomes([1, 0, 1], ["x", "y", "z"]), outcomes([1, 1, 0], ["z", "x", "y"])
    assert compare(a, b).difference == 0
    for other in (outcomes([1, 1, 0], ["z", "x", "w"]), outcomes([1, 1])):
        with pytest.raises(OtherSamplesError):
            compare(a, other)


def test_captions_of_one_image_are_resampled_together():
    # five equal captions per image carry the information of one: the interval is that of the images
    rng = np.random.default_rng(0)
    ids = [f"i{image}#{k}" for image in range(200) for k in range(5)]
    a, b = (np.repeat(rng.random(200) < p, 5) for p in (0.6, 0.5))
    found = compare(outcomes(a, ids, captions=True), outcomes(b, ids, captions=True))
    width = found.interval[1] - found.interval[0]
    spread = np.std(a[::5].astype(float) - b[::5]) / np.sqrt(200)
    assert found.test == "paired bootstrap"
    assert width == pytest.approx(2 * 1.96 * spread, rel=0.1)
    independent = compare(outcomes(a), outcomes(b))
    assert width > 2 * (independent.interval[1] - independent.interval[0])
    assert found.p_two_sided > independent.p_two_sided


@pytest.mark.parametrize("captions", [False, True])
def test_the_gate_and_the_page_say_the_same(captions):
    """Two-sided p of the page is twice the gate's one-sided p of the same loss."""
    rng = np.random.default_rng(3)
    ids = [f"i{image}#{k}" for image in range(60) for k in range(2)]
    a, b = (outcomes(rng.random(120) < p, ids, captions) for p in (0.7, 0.6))
    assert a.outcomes.mean() > b.outcomes.mean()
    assert compare(a, b).p_two_sided == pytest.approx(2 * compare(a, b).p)

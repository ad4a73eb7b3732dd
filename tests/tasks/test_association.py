"""Jaccard scores by hand, and by loops over sets on random data."""

from __future__ import annotations

import math

import numpy as np
import pytest

from clipeval.errors import MetricError
from clipeval.tasks import association


def scored(rows):
    """``rows``: per item the cosine of each candidate with the cue, and the places of its associations."""
    cosines = np.concatenate([cosine for cosine, _ in rows]).astype(np.float32)
    images = np.stack([cosines, np.sqrt(1 - cosines**2)], axis=1)
    groups = np.repeat(np.arange(len(rows)) * 3 + 5, [len(cosine) for cosine, _ in rows])
    associated = np.concatenate([[place in own for place in range(len(cosine))] for cosine, own in rows])
    ids = [f"{group}/{place}" for group, place in zip(groups, range(len(groups)), strict=True)]
    text = np.array([[7.0, 0.0]], np.float32)
    result = association.evaluate(images, text, np.zeros(len(images), int), associated, groups, ids)
    return {metric.name: metric for metric in result.metrics}, result


def test_by_hand():
    """Associations a, c; in the order of cosines b, a, c: predicted are b and a, one of three names is in both: 1/3.
    With three associations, two of them found: 2 of 4. Two of two: 1."""
    found, result = scored(
        [
            ([0.5, 0.9, 0.4, 0.1, 0.0], {0, 2}),
            ([0.9, 0.8, 0.1, 0.7, 0.0, 0.0, 0.0], {0, 1, 2}),
            ([0.1] * 8 + [0.9, 0.8], {8, 9}),
        ]
    )
    assert {name: (metric.value, metric.n) for name, metric in found.items()} == {
        "avg_jaccard_score": (pytest.approx((1 / 3 + 1 / 2 + 1) / 3), 3),
        "jaccard_score_5-6": (pytest.approx(1 / 3), 1),
        "jaccard_score_10-12": (1, 1),
    }
    assert result.samples["id"].tolist() == ["5/0", "8/5", "11/12"]
    assert result.samples["jaccard"] == pytest.approx([1 / 3, 1 / 2, 1])
    assert result.samples["jaccard_10-12"].tolist()[2] == 1
    assert np.isnan(result.samples["jaccard_10-12"]).tolist() == [True, True, False]


def test_equal_cosines_go_to_the_first():
    found, _ = scored([([0.5] * 10, {0, 1}), ([0.5] * 10, {8, 9}), ([0.5] * 10, {1, 2})])
    assert found["jaccard_score_10-12"].value == pytest.approx((1 + 0 + 1 / 3) / 3)


@pytest.mark.parametrize("seed", range(5))
def test_random_rows_as_sets_have_them(seed):
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(int(rng.integers(50, 170))):
        count = int(rng.choice([3, 5, 6, 7, 9, 10, 12, 15]))
        own = set(rng.choice(count, int(rng.integers(1, min(count, 5))), replace=False).tolist())
        rows.append((rng.uniform(-0.9, 0.9, count), own))
    found, _ = scored(rows)
    expected: dict[str, list[float]] = {"avg_jaccard_score": [], "jaccard_score_5-6": [], "jaccard_score_10-12": []}
    for cosine, own in rows:
        best = set(sorted(range(len(cosine)), key=lambda place: -cosine[place])[: len(own)])
        score = len(best & own) / len(best | own)
        expected["avg_jaccard_score"].append(score)
        if len(cosine) <= 6:
            expected["jaccard_score_5-6"].append(score)
        if len(cosine) >= 10:
            expected["jaccard_score_10-12"].append(score)
    for name, scores in expected.items():
        assert found[name].value == pytest.approx(sum(scores) / len(scores), abs=1e-12)
        assert found[name].n == len(scores)
        assert 0 <= found[name].ci_low <= found[name].value <= found[name].ci_high <= 1


def test_a_score_without_rows_is_skipped():
    found, _ = scored([([0.1, 0.2, 0.3, 0.4, 0.5], {4})])
    assert found["jaccard_score_10-12"].status == "skipped"
    assert "of at least 10 candidates, and there are none" in found["jaccard_score_10-12"].error
    assert (found["avg_jaccard_score"].value, found["avg_jaccard_score"].ci_high) == (1, 1)
    assert found["avg_jaccard_score"].ci_low == pytest.approx(0.2065, abs=1e-4)  # Wilson, 1 of 1


@pytest.mark.parametrize(
    ("cue", "text"),
    [("Cat", "A cat"), ("OWL", "An owl"), ("unicorn", "An unicorn"), ("hour", "A hour"), ("Écu", "A écu")],
)
def test_prompts(cue, text):
    assert association.prompt(cue) == text


def test_broken_input_is_an_error():
    with pytest.raises(MetricError, match="the split is empty"):
        association.evaluate(np.ones((0, 2)), np.ones((1, 2)), np.array([], int), np.array([], bool), np.array([]), [])
    with pytest.raises(MetricError, match="has no association"):
        scored([([0.1, 0.2], set())])
    with pytest.raises(MetricError, match="image '5/0': its embedding holds NaN"):
        scored([([math.nan, 0.2], {0})])

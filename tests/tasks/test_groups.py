"""Accuracy in the worst group and F1 over the classes in the labels: by hand, and against loops and scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
import sklearn.metrics

from clipeval.errors import MetricError
from clipeval.metrics import macro_f1
from clipeval.stats.intervals import worst_interval
from clipeval.tasks import accuracy, groups
from clipeval.vocabulary import METRICS


def classified(scores, labels, n_classes=None):
    """The result of classifying by ``scores`` ``[n, K]``."""
    classes = np.arange(n_classes or scores.shape[1])
    return accuracy.score([scores], classes, labels, [str(row) for row in range(len(labels))])


def asked(name, result, **fields):
    """The metric that was asked for, and the notes."""
    found = groups.with_asked(result, name, {field: np.asarray(values) for field, values in fields.items()} or None)
    assert [metric.name for metric in found.metrics] == ["acc1", "acc5", "mean_per_class_recall", name]
    return found.metrics[-1], found


def one_hot(predictions, k):
    return np.eye(k)[predictions]


WORKED = classified(one_hot([0, 1, 1, 1, 3, 0], 4), np.array([0, 0, 1, 1, 1, 2]))
"""Six images of three of the four classes: hits 1 0 1 1 0 0."""


def test_the_worst_region_by_hand():
    """Region 4 has the first three images, 2/3 right; region 1 the others, 1/3; regions 0, 2, 3 have none."""
    for name in ("acc_worst_region", "acc_wg"):
        metric, found = asked(name, WORKED, region=[4, 4, 4, 1, 1, 1])
        assert (metric.value, metric.n, metric.status) == (pytest.approx(1 / 3, abs=1e-15), 6, "ok")
        assert 0 <= metric.ci_low < 1 / 3 < metric.ci_high <= 1
        assert found.notes["groups"] == {
            name: {"region:1": {"value": 1 / 3, "n": 3}, "region:4": {"value": pytest.approx(2 / 3), "n": 3}}
        }
        assert found.samples["region"].tolist() == [4, 4, 4, 1, 1, 1]


def test_f1_by_hand():
    """Class 0: one right of two predicted and two true, 1/2. Class 1: 2/3. Class 2: 0. Class 3 is no label. Over four
    names it would be 0.2917, over the predicted classes 0.5833."""
    metric, _ = asked("F1-macro_all", WORKED)
    assert metric.value == pytest.approx(7 / 18, abs=1e-15)
    assert (metric.n, metric.status) == (6, "ok")
    assert 0 <= metric.ci_low <= 7 / 18 <= metric.ci_high <= 1


def test_top_5_of_the_worst_income_by_hand():
    """Ten classes, scores 9 to 0: a label is among the top 5 where it is below 5."""
    scores = np.tile(np.arange(9.0, -1, -1), (7, 1))
    result = classified(scores, np.array([0, 4, 5, 9, 2, 3, 8]))
    metric, _ = asked("acc_top5_wg", result, income_ds=[3, 3, 3, 3, 7, 7, 7], region=[0] * 7)
    assert metric.value == 0.5  # 2 of 4; the other group has 2 of 3
    assert [m.value for m in result.metrics[:2]] == [pytest.approx(1 / 7), pytest.approx(4 / 7)]


def by_loops(hits, numbers):
    """The lowest share over the numbers that occur, in plain loops."""
    lowest = math.inf
    for number in set(numbers.tolist()):
        members = [hit for hit, own in zip(hits, numbers, strict=True) if own == number]
        lowest = min(lowest, sum(members) / len(members))
    return lowest


@pytest.mark.parametrize("seed", range(7))
def test_random_predictions_as_loops_and_scikit_learn_have_them(seed):
    rng = np.random.default_rng(seed)
    n, k = int(rng.integers(211, 997)), int(rng.integers(5, 47))
    labels = rng.integers(0, k, n)
    labels[np.isin(labels, rng.integers(0, k, 3))] = k - 1  # classes without an image
    scores = rng.normal(size=(n, k)) + 1.5 * one_hot(labels, k) * rng.random((n, 1))
    numbers = rng.choice([2, 3, 17, 400, 10_007, 2**40], n, p=[0.01, 0.3, 0.29, 0.2, 0.1, 0.1])
    result = classified(scores, labels)
    predicted = scores.argmax(axis=1)
    top5 = np.argsort(-scores, axis=1)[:, :5]
    for name, field, hits in (
        ("acc_worst_region", "region", predicted == labels),
        ("acc_wg", "region", predicted == labels),
        ("acc_top5_wg", "income_ds", [label in row for label, row in zip(labels, top5, strict=True)]),
    ):
        metric, _ = asked(name, result, **{field: numbers})
        assert metric.value == pytest.approx(by_loops(hits, numbers), abs=1e-12)
        assert metric.ci_low <= metric.value <= metric.ci_high
    f1 = asked("F1-macro_all", result)[0]
    theirs = sklearn.metrics.f1_score(labels, predicted, labels=np.unique(labels), average="macro", zero_division=0)
    assert f1.value == pytest.approx(theirs, abs=1e-12)
    assert f1.ci_low < f1.value < f1.ci_high
    balanced = sklearn.metrics.recall_score(labels, predicted, labels=np.unique(labels), average="macro")
    assert result.metrics[2].value == pytest.approx(balanced, abs=1e-12)


def test_f1_of_resampled_samples_is_that_of_the_samples_repeated():
    rng = np.random.default_rng(3)
    labels, predictions = rng.integers(0, 5, 40), rng.integers(0, 7, 40)
    weights = rng.multinomial(40, np.full(40, 1 / 40), 9).astype(float)
    weights[0, labels == 2] = 0  # a draw without one of the classes
    found = macro_f1(labels, predictions, weights)
    for row, value in zip(weights.astype(int), found, strict=True):
        y, p = np.repeat(labels, row), np.repeat(predictions, row)
        theirs = sklearn.metrics.f1_score(y, p, labels=np.unique(y), average="macro", zero_division=0)
        assert value == pytest.approx(theirs, abs=1e-12)


def test_interval_of_the_worst_group():
    """With one group it is that of a proportion; groups that cannot vary leave it open."""
    low, high = worst_interval(np.array([300]), np.array([1000]), 0)
    assert (low, high) == (
        pytest.approx(0.3 - 1.96 * math.sqrt(0.21 / 1000), abs=2e-3),
        pytest.approx(0.3284, abs=2e-3),
    )
    low, high = worst_interval(np.array([0, 900]), np.array([4, 1000]), 0)
    assert low == 0
    assert high == pytest.approx(0.4899, abs=1e-4)  # Wilson, 0 of 4
    low, high = worst_interval(np.array([4, 1000]), np.array([4, 1000]), 0)
    assert (low, high) == (pytest.approx(0.5101, abs=1e-4), 1)
    many = worst_interval(np.full(200, 3), np.full(200, 6), 0)  # every draw has a lower one
    assert many[1] == 0.5


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("acc_wg", {}, r"acc_wg needs the field 'region' of the numbers in \.npy: .*metadata:.*it is not given"),
        ("acc_top5_wg", {"region": [0, 1, 2, 3, 4, 5]}, r"needs the field 'income_ds' .* \(it names region\)"),
        ("acc_worst_region", {"region": [0, 1, -1, 0, 0, 0]}, "a group has the number -1 in the field 'region'"),
    ],
)
def test_what_is_missing_or_negative_fails_the_one_metric(name, fields, message):
    metric, found = asked(name, WORKED, **fields)
    assert metric.status == "failed"
    assert math.isnan(metric.value)
    with pytest.raises(MetricError, match=message):
        raise MetricError(metric.error)
    assert [m.status for m in found.metrics] == ["ok", "skipped", "ok", "failed"]


def test_top_5_of_fewer_than_five_classes_is_skipped():
    metric, _ = asked("acc_top5_wg", WORKED, income_ds=[0, 1, 2, 0, 1, 2])
    assert (metric.status, metric.error) == ("skipped", "acc5 needs at least 5 classes; there are 4")


def test_several_labels_per_image_have_no_worst_group():
    result = WORKED.__class__(WORKED.metrics[:1], {"id": np.array(["a"])})
    found = groups.with_asked(result, "acc_wg", {"region": np.array([0])})
    assert found.metrics[-1].error == "acc_wg needs one label per image, and here are several."


def test_notes_name_the_worst_of_many_groups():
    labels = np.zeros(300, dtype=int)
    result = classified(one_hot(np.arange(300) % 3 % 2, 4), labels)
    _, found = asked("acc_wg", result, region=np.arange(300))
    noted = found.notes["groups"]["acc_wg"]
    assert len(noted) == 50
    assert {entry["value"] for entry in noted.values()} == {0.0}


def test_every_metric_that_can_be_asked_for_is_known_here():
    names = [name for name, metric in METRICS.items() if metric.asked]
    fields = {"region": [0] * 6, "income_ds": [0] * 6}
    assert {asked(name, WORKED, **fields)[0].status for name in names} == {"ok", "skipped"}

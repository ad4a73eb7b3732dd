import numpy as np
import pytest
import sklearn.metrics
import torch

from clipeval import metrics
from clipeval.errors import MetricError


def test_normalise_equals_torch_and_keeps_zero_rows():
    x = np.random.default_rng(0).normal(size=(13, 7)).astype(np.float32)
    x[4] = 0
    ours = metrics.normalise(x)
    assert ours.dtype == np.float32
    assert np.abs(ours - torch.nn.functional.normalize(torch.tensor(x), dim=-1).numpy()).max() <= 1e-7
    assert (ours[4] == 0).all()


def test_normalise_of_a_tensor_stays_a_tensor():
    x = torch.tensor([[3.0, 4.0]])
    assert torch.equal(metrics.normalise(x), torch.tensor([[0.6, 0.8]]))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor])
def test_non_finite_embedding_names_the_first_sample(bad, kind):
    x = np.zeros((5, 3), np.float32)
    x[3, 1] = x[4, 0] = bad
    with pytest.raises(MetricError, match=r"image 'd'.* 2 of 5 in all"):
        metrics.require_finite(kind(x), ["a", "b", "c", "d", "e"], "image")
    metrics.require_finite(kind(x[:3]), ["a", "b", "c"], "image")


def test_label_ranks_by_hand():
    scores = np.array([[0.1, 0.5, 0.3], [0.9, 0.9, 0.9], [0.2, 0.2, 0.1], [0.3, 0.2, 0.1]], np.float32)
    assert metrics.label_ranks(scores, np.array([2, 1, 0, -1])).tolist() == [1, 1, 0, 3]


def test_label_ranks_agree_with_a_stable_sort():
    rng = np.random.default_rng(1)
    scores = rng.integers(0, 4, (201, 9)).astype(np.float32)  # many ties
    columns = rng.integers(0, 9, 201)
    order = np.argsort(-scores, axis=1, kind="stable")
    assert (metrics.label_ranks(scores, columns) == np.argmax(order == columns[:, None], axis=1)).all()


def test_mean_per_class_recall_is_sklearns_balanced_accuracy():
    rng = np.random.default_rng(2)
    labels, predictions = rng.choice([-3, 2, 7, 40], 101), rng.choice([-3, 2, 7, 40], 101)
    ours = metrics.mean_per_class_recall(*metrics.hits_per_class(labels == predictions, labels))
    assert ours == pytest.approx(sklearn.metrics.balanced_accuracy_score(labels, predictions), abs=1e-15)


def test_average_precision_by_hand():
    # relevant at ranks 1, 3 and 4: (1/1 + 2/3 + 3/4) / 3
    relevant = np.array([True, False, True, True, False])
    assert metrics.average_precision(relevant, np.ones((1, 5)))[0] == pytest.approx((1 + 2 / 3 + 3 / 4) / 3, abs=1e-15)


def test_weighted_average_precision_is_sklearns_with_sample_weights():
    rng = np.random.default_rng(3)
    scores, relevant = rng.normal(size=57), rng.random(57) < 0.3
    weights = rng.multinomial(57, np.full(57, 1 / 57), size=11).astype(float)
    order = np.argsort(-scores)
    ours = metrics.average_precision(relevant[order], weights[:, order])
    oracle = [sklearn.metrics.average_precision_score(relevant, scores, sample_weight=w) for w in weights]
    assert ours == pytest.approx(oracle, abs=1e-12)


def test_average_precision_without_a_relevant_sample_is_nan():
    values = metrics.average_precision(np.array([True, False]), np.array([[0.0, 2.0], [1.0, 1.0]]))
    assert np.isnan(values[0])
    assert values[1] == 1


def test_normalising_in_place_gives_the_same_bits(monkeypatch):
    rows = np.random.default_rng(7).normal(size=(37, 19)).astype(np.float32)
    rows[5] = 0
    expected = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.float32(1e-12))
    unit = metrics.normalise(rows)
    assert unit is not rows
    assert (unit == expected).all()
    monkeypatch.setattr(metrics, "_ROWS", 8)
    assert (metrics.normalise(rows) == expected).all()
    assert metrics.normalise(rows, in_place=True) is rows
    assert (rows == expected).all()
    assert metrics.normalise(rows[:0]).shape == (0, 19)

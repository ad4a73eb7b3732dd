"""Softmax regression against closed forms and scikit-learn's optimum."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from clipeval.tasks import lbfgs, softmax
from clipeval.tasks.accuracy import Labelled
from clipeval.tasks.softmax import SoftmaxRegression


def rows(n, width, labels, seed=0):
    """Unit vectors around a centre per class, all with a common mean and a falling spectrum."""
    rng = np.random.default_rng(seed)
    spectrum = np.arange(1, width + 1) ** -0.5
    classes, columns = np.unique(rng.choice(labels, n), return_inverse=True)
    x = (rng.normal(size=(len(classes), width))[columns] * 0.5 + rng.normal(size=(n, width))) * spectrum
    x = x @ np.linalg.qr(rng.normal(size=(width, width)))[0] + rng.normal(size=width) * 0.6
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return Labelled(x.astype(np.float32), classes[columns], [str(row) for row in range(n)])


def cross_entropy(weights, bias, x, columns):
    """In float64, from its definition."""
    scores = x.astype(float) @ weights.T + bias
    return np.mean(np.log(np.exp(scores).sum(axis=1)) - scores[np.arange(len(x)), columns])


def reference(split, c):
    return LogisticRegression(C=c, tol=1e-9, max_iter=20_000).fit(split.embeddings.astype(float), split.labels)


@pytest.mark.parametrize("labels", [[-7, 3, 4, 11, 40], [9, 2]])
def test_the_gradient_is_that_of_the_cross_entropy(labels):
    split = rows(157, 6, labels)
    classes, columns = np.unique(split.labels, return_inverse=True)
    rng = np.random.default_rng(1)
    weights, bias = rng.normal(size=(len(classes), 6)), rng.normal(size=len(classes))
    of_weights, of_bias = SoftmaxRegression([split]).gradient(weights, bias)
    step = 1e-6
    for place in np.ndindex(weights.shape):
        moved = np.zeros_like(weights)
        moved[place] = step
        up, down = (cross_entropy(weights + sign * moved, bias, split.embeddings, columns) for sign in (1, -1))
        assert of_weights[place] == pytest.approx((up - down) / (2 * step), abs=1e-6)
    for place in range(len(bias)):
        moved = np.eye(len(bias))[place] * step
        up, down = (cross_entropy(weights, bias + sign * moved, split.embeddings, columns) for sign in (1, -1))
        assert of_bias[place] == pytest.approx((up - down) / (2 * step), abs=1e-6)


@pytest.mark.parametrize("labels", [np.arange(13) * 3 - 5, [9, 2]])
@pytest.mark.parametrize("c", [0.1, 10.0, 1000.0])
def test_the_optimum_is_scikit_learns(labels, c):
    split = rows(1501, 24, labels)
    others = rows(1009, 24, labels, seed=3)
    model = SoftmaxRegression([split])
    found, expected = model.fit(c), reference(split, c)
    assert found.converged
    assert found.classes.tolist() == expected.classes_.tolist()
    scores = others.embeddings @ found.weights.T + found.bias
    if len(found.classes) == 2:
        assert scores[:, 1] == pytest.approx(
            expected.decision_function(others.embeddings), abs=0.01 * float(scores.std())
        )
    else:
        theirs = expected.decision_function(others.embeddings)
        centred = [s - s.mean(axis=1, keepdims=True) for s in (scores, theirs)]
        assert centred[0] == pytest.approx(centred[1], abs=0.01 * float(theirs.std()))
    assert (found.classes[scores.argmax(axis=1)] != expected.predict(others.embeddings)).sum() <= 2
    # the gradient of the whole objective, in float64: at most what the tolerance says, where zero weights have 1e4
    classes, columns = np.unique(split.labels, return_inverse=True)
    rows_of_weights = 1 if len(classes) > 2 else 2
    weights, bias = found.weights.astype(float) / rows_of_weights, found.bias.astype(float) / rows_of_weights
    probabilities = np.exp(split.embeddings @ weights.T + bias)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    gradient = (probabilities - np.eye(len(classes))[columns]).T @ split.embeddings / 1501
    gradient += rows_of_weights * weights / (c * 1501)
    at_zero = (1 / len(classes) - np.eye(len(classes))[columns]).T @ split.embeddings / 1501
    assert np.abs(gradient).max() < 1.05e-4 * np.abs(at_zero).max()


def test_parts_blocks_and_threads_change_nothing(monkeypatch):
    split = rows(1501, 24, np.arange(13) * 3 - 5)
    one = SoftmaxRegression([split]).fit(10.0)
    monkeypatch.setattr(softmax, "_BLOCK", 24 * 7)
    fits = [SoftmaxRegression([split], threads).fit(10.0) for threads in (1, 2, 5)]
    for other in fits[1:]:
        assert (other.weights == fits[0].weights).all()
        assert (other.bias == fits[0].bias).all()
    first = np.arange(1501) < 400
    in_two = SoftmaxRegression([split.rows(first), split.rows(~first)]).fit(10.0)
    tensor = Labelled(torch.tensor(split.embeddings), split.labels, split.ids)
    of_tensor = SoftmaxRegression([tensor]).fit(10.0)
    assert isinstance(of_tensor.weights, torch.Tensor)
    largest = np.abs(one.weights).max()
    for other in (fits[0], in_two, of_tensor):
        assert np.asarray(other.weights) == pytest.approx(one.weights, abs=2e-3 * float(largest))


def test_a_start_at_the_optimum_needs_a_pass_or_two():
    split = rows(1501, 24, np.arange(13))
    model = SoftmaxRegression([split])
    found = model.fit(10.0)
    before = model.passes
    assert model.fit(10.0, found).converged
    assert model.passes - before <= 3


def test_passes_are_few_where_scikit_learn_needs_many():
    """The coordinates are worth it: a common mean and a falling spectrum are what L-BFGS is slow on."""
    split = rows(3001, 48, np.arange(20))
    model = SoftmaxRegression([split])
    assert model.fit(30.0).converged
    theirs = LogisticRegression(C=30.0, tol=model.tolerance, max_iter=10_000).fit(split.embeddings, split.labels)
    assert model.passes < theirs.n_iter_[0] / 2


def test_minimise_finds_the_minimum_of_a_quadratic_with_a_bad_scale():
    scales, minimum = np.logspace(-1, 1, 40), np.linspace(-3, 5, 40)
    seen = []

    def evaluate(x):
        seen.append(x)
        gradient = scales * (x - minimum)
        return lbfgs.Point(x, gradient, np.abs(gradient).max())

    found = lbfgs.minimise(evaluate, np.zeros(40), 1e-8, 500)
    assert found.x == pytest.approx(minimum, abs=1e-6)
    assert found.size <= 1e-8
    assert len(seen) < 300
    stopped = lbfgs.minimise(evaluate, np.zeros(40), 1e-8, 3)
    assert stopped.size > 1e-8


def test_minimise_does_not_need_the_function_itself():
    """Of log cosh, whose second derivative vanishes far away, a full step is far too long or too short."""

    def evaluate(x):
        gradient = np.tanh(x - 2)
        return lbfgs.Point(x, gradient, np.abs(gradient).max())

    found = lbfgs.minimise(evaluate, np.array([40.0, -35.0, 2.1]), 1e-9, 200)
    assert found.x == pytest.approx(np.full(3, 2.0), abs=1e-8)

"""Mixture laws: planted ones are recovered, forecasts of other mixtures hold, and optima are those of a grid."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

from clipeval.errors import MeasureError
from clipeval.scaling.questions.mixtures import MixtureLaw, best_mixture, fit_mixture, leave_mixture_out, left_out

SHARES = np.random.default_rng(0).dirichlet(np.ones(4), 19)
PLANTED = MixtureLaw(1.4, np.array([0.9, -0.4, 0.1, -3.0]), 0.0)


def tasks(seed, noise=0.0):
    """Three tasks that want different sources: losses ``[3, 19]``."""
    slopes = np.array([[1.0, -0.6, 0.4, -0.1], [-0.5, 0.8, 0.2, 0.3], [0.4, 0.5, -0.9, 0.6]])
    laws = [MixtureLaw(floor, s, 0.0) for floor, s in zip((1.0, 1.5, 0.5), slopes, strict=True)]
    rng = np.random.default_rng(seed)
    return np.array([law.loss(SHARES) * np.exp(rng.normal(0, noise, len(SHARES))) for law in laws]), laws


def test_a_planted_law_is_recovered():
    found = fit_mixture(SHARES, PLANTED.loss(SHARES))
    np.testing.assert_allclose([found.floor, *found.slopes], [PLANTED.floor, *PLANTED.slopes], rtol=1e-5)
    assert found.rss < 1e-18


def test_the_authors_form():
    """c + k exp(t . r) with any k: the shares sum to 1, so that ln k is part of every slope."""
    c, k, t = 1.2, 2.5, np.array([0.3, -1.0, 0.5, -0.2])
    found = fit_mixture(SHARES, c + k * np.exp(SHARES @ t))
    np.testing.assert_allclose(found.slopes - np.log(k), t, atol=1e-4)
    assert found.floor == pytest.approx(c, rel=1e-4)


def test_forecasts_of_mixtures_that_were_left_out():
    """At 0.2 % noise within 1 % of what was measured; a log-linear law and the mean of the others are further off."""
    loss = PLANTED.loss(SHARES) * np.exp(np.random.default_rng(1).normal(0, 0.002, 19))
    held = np.arange(19) < 5
    off = np.abs(left_out(SHARES, loss, held)).mean()
    line = np.linalg.lstsq(SHARES[~held], np.log(loss[~held]), rcond=None)[0]
    assert off < 0.01
    assert off < 0.5 * np.abs(np.exp(SHARES[held] @ line) / loss[held] - 1).mean()
    assert off < 0.2 * np.abs(loss[~held].mean() / loss[held] - 1).mean()
    each = leave_mixture_out(SHARES, loss)
    assert each[3] == pytest.approx(left_out(SHARES, loss, np.arange(19) == 3)[0], rel=1e-6)
    assert np.abs(each).mean() < 0.01


def test_the_optimum_is_that_of_a_general_solver():
    losses, laws = tasks(0)
    weights = np.array([2.0, 1.0, 1.0])
    found = best_mixture(SHARES, losses, weights)

    def mean(shares):
        return sum(w * law.loss(shares[None])[0] for w, law in zip(weights / 4, laws, strict=True))

    expected = minimize(
        mean, np.full(4, 0.25), bounds=[(0, 1)] * 4, constraints={"type": "eq", "fun": lambda r: r.sum() - 1}, tol=1e-12
    )
    np.testing.assert_allclose(found.shares, expected.x, atol=1e-3)
    assert found.loss == pytest.approx(expected.fun, rel=1e-6)
    assert found.shares.sum() == pytest.approx(1)
    # without noise no single mixture matters
    np.testing.assert_allclose(found.high - found.low, 0, atol=2e-3)


def test_one_task_wants_one_source():
    """The best mixture for a single law is the source with the lowest slope alone, which was not tried."""
    found = best_mixture(SHARES, PLANTED.loss(SHARES))
    np.testing.assert_allclose(found.shares, [0, 0, 0, 1])
    assert not found.inside
    assert found.loss == pytest.approx(1.4 + np.exp(-3), rel=1e-5)


def test_noise_shows_in_what_one_mixture_does():
    losses, _ = tasks(3, noise=0.01)
    found = best_mixture(SHARES, losses)
    assert (found.low <= found.shares + 1e-9).all()
    assert (found.shares <= found.high + 1e-9).all()
    assert (found.high - found.low).max() > 0.01


def test_inside_of_what_was_tried():
    """The optimum of three tasks is a mean of the single sources, but not of mixtures that all hold one of them."""
    shares = np.concatenate([np.eye(4), SHARES])
    _, laws = tasks(0)
    losses = np.array([law.loss(shares) for law in laws])
    assert best_mixture(shares, losses).inside
    much_of_one = 0.1 * SHARES + np.array([0, 0, 0, 0.9])
    assert not best_mixture(much_of_one, np.array([law.loss(much_of_one) for law in laws])).inside


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        (SHARES[:7], "7 different mixtures of 4 sources.*at least 8"),
        (np.repeat(SHARES[:7], 3, axis=0), "7 different mixtures"),
        (SHARES * 1.01, "sum to 1"),
        (SHARES - np.array([0.9, 0, 0, -0.9]), "at least 0"),
        (SHARES[:, [0, 0, 1, 1]] / SHARES[:, [0, 0, 1, 1]].sum(1, keepdims=True), "vary together"),
    ],
)
def test_what_cannot_be_fitted(shares, message):
    with pytest.raises(MeasureError, match=message):
        fit_mixture(shares, np.linspace(1, 2, len(shares)))


def test_losses_have_to_be_positive():
    with pytest.raises(MeasureError, match="positive"):
        fit_mixture(SHARES, np.append(np.ones(18), 0.0))

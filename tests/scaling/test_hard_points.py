"""Points that determine a law badly or not at all: no crash, no nonsense, and a reason."""

from __future__ import annotations

import numpy as np
import pytest
from imagenet_cherti2023 import COMPUTE, ERROR
from scipy import stats
from tables import fit as estimate
from tables import table

from clipeval.errors import MeasureError
from clipeval.scaling.estimate import fit_many
from clipeval.scaling.fit import fit
from clipeval.scaling.frontier import Points
from clipeval.scaling.laws import LAWS, Sigmoid
from clipeval.scaling.laws.law import vary
from clipeval.scaling.minimise import HUBER, LEAST_SQUARES, Data, minimise
from clipeval.scaling.problem import Problem
from clipeval.scaling.uncertainty.methods import uncertainty
from clipeval.scaling.uncertainty.profile import profile_intervals

X = np.logspace(8, 13, 24)


class Blind:
    """A straight line, and a coordinate without any effect."""

    def log_error(self, log_x, theta):
        value = theta[:, :1] + theta[:, 1:2] * log_x
        return value, np.stack([np.ones_like(log_x), log_x, np.zeros_like(log_x)], axis=-1)


class Twice:
    """A straight line whose level is said twice: only the sum of two coordinates has an effect."""

    def log_error(self, log_x, theta):
        value = theta[:, :1] + theta[:, 1:2] * log_x + theta[:, 2:]
        return value, np.stack([np.ones_like(log_x), log_x, np.ones_like(log_x)], axis=-1)


@pytest.mark.parametrize("curve", [Blind(), Twice()])
def test_a_search_with_a_coordinate_that_is_not_determined_is_least_squares_of_the_others(curve):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(5, 9)), rng.normal(size=(5, 9))
    found = minimise(
        curve, Data(x, y, np.ones(x.shape)), np.full((5, 3), 0.5), (np.full(3, -np.inf), np.full(3, np.inf))
    )
    for theta, own_x, own_y in zip(found.theta, x, y, strict=True):
        line = stats.linregress(own_x, own_y)
        level = theta[0] + (theta[2] if isinstance(curve, Twice) else 0.0)
        assert (theta[1], level) == (pytest.approx(line.slope), pytest.approx(line.intercept))
        assert theta[2] == 0.5 or isinstance(curve, Twice)


@pytest.mark.parametrize("name", ["sigmoid", "power_floor", "joint_repeats"])
@pytest.mark.parametrize("loss", [LEAST_SQUARES, HUBER])
def test_a_draw_that_determines_nothing_does_not_stop_the_others(name, loss):
    """Of 3 draws the second is of errors at chance (no term is left), the others are what each gives alone."""
    law = Sigmoid(0.5) if name == "sigmoid" else LAWS[name]
    rng = np.random.default_rng(1)
    x = np.stack([10 ** rng.uniform(7, 9, 24), 10 ** rng.uniform(8, 11, 24), np.full(24, 4e8)], axis=1)
    log_x = np.log(x if law.inputs == 3 else X)
    good = np.log(0.4 - 0.01 * (log_x.T[0] if law.inputs == 3 else log_x)) + rng.normal(0, 0.01, 24)
    errors = np.stack([good, np.full(24, np.log(0.5 if name == "sigmoid" else 0.9)), good[::-1]])
    start = Problem(law, np.exp(log_x), np.exp(good)).estimate.params

    def fitted(which):
        points = Points(
            np.broadcast_to(log_x, (len(which), *log_x.shape)), errors[which], np.ones((len(which), 24)), None
        )
        return fit_many(law, points, loss, start)

    together = fitted([0, 1, 2])
    np.testing.assert_allclose(together[[0]], fitted([0]), rtol=1e-12)
    np.testing.assert_allclose(together[[2]], fitted([2]), rtol=1e-12)


def test_errors_at_chance_have_a_sigmoid_within_bounds_that_says_so():
    rng = np.random.default_rng(5)
    error = np.where(np.arange(24) % 3, 0.5, 0.52) * np.exp(rng.normal(0, 1e-3, 24))
    error[-1] = 0.1
    found = fit(_rows(error), law="sigmoid", chance={"d": 0.5}, bootstrap=200)
    assert abs(found.fits["alpha"].item()) <= 5
    assert (
        f"{(error > 0.5 * (1 + 1e-9)).sum()} of 24 errors are above 0.5, that of guessing" in found.fits["notes"].item()
    )
    assert "alpha is not determined: the search ended at its bound" in found.fits["notes"].item()
    assert found.card["chance"] == {"d": 0.5}


def test_chance_is_what_is_handed_in(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "benchmarks.yaml").write_text("datasets: {d: {spec: 'folder:/nowhere', chance: 0.3}}")
    error = Sigmoid(0.3).error(X, np.array([-0.3, 500.0]))
    handed, unknown = (fit(_rows(error), law="sigmoid", chance=c, bootstrap=100) for c in ({"d": 0.3}, None))
    assert handed.fits["alpha"].item() == pytest.approx(-0.3)
    assert unknown.fits["alpha"].item() != pytest.approx(-0.3, abs=0.01)
    assert (handed.card["chance"], unknown.card["chance"]) == ({"d": 0.3}, {"d": 0.0})


def _rows(error):
    rows = table(n=len(error))[: len(error)].assign(dataset="d", value=1 - error)
    return rows.assign(gmacs=1.0, samples_seen=X[: len(error)])


@pytest.mark.parametrize("n", range(2, 30))
@pytest.mark.parametrize("x", [1.0, 12.8e9, 2.3e11, 7e-5])
def test_scales_that_are_the_same_give_no_exponent(n, x):
    rng = np.random.default_rng(n)
    with pytest.raises(MeasureError, match="do not vary"):
        estimate(LAWS["power"], np.full(n, x), rng.uniform(0.2, 0.5, n))
    alike = np.full(n, x) * (1 + 1e-4 * (np.arange(n) == 1))
    with pytest.raises(MeasureError, match="do not vary"):
        estimate(LAWS["power"], alike, rng.uniform(0.2, 0.5, n))


def test_how_much_scales_have_to_vary():
    one = np.log([[[1.0], [1.019], [1.0]], [[1.0], [1.0], [1.021]], [[1.0], [9.0], [1.0]]])
    assert vary(one, np.array([[1, 1, 1], [1, 1, 1], [1, 0, 1]])).tolist() == [False, True, False]
    rng = np.random.default_rng(0)
    along = rng.normal(0, 2, (9, 1)) * np.array([1.0, 2.0])
    across = rng.normal(0, 1, (9, 1)) * np.array([2.0, -1.0]) / 5**0.5
    across -= along * (across * along).sum() / (along**2).sum()
    for factor in (0.5, 2.0):
        x = along + across * factor * 0.02 / np.linalg.svd(across - across.mean(0))[1][0] * 3
        smallest = np.linalg.svd(x - x.mean(0))[1][-1] / 9**0.5
        assert vary(x[None], np.ones((1, 9))).tolist() == [smallest >= 0.02] == [factor > 1]


def test_exit_of_a_bootstrap_whose_draws_do_not_vary():
    """2 of 14 models differ in scale: of models drawn again many are all alike, which is counted and said."""
    x = np.where(np.arange(14) < 12, 1e9, 3e10)
    problem = Problem(LAWS["power"], x, np.linspace(0.5, 0.4, 14), loss=HUBER, draws=2000)
    found = uncertainty(problem)
    assert found.lost == pytest.approx(2000 * ((12 / 14) ** 14 + (2 / 14) ** 14), abs=120)
    assert len(found.draws) == 2000 - found.lost


# --- profile intervals


@pytest.mark.parametrize("name", ["power_floor", "shifted_floor", "m4"])
def test_profile_ends_have_the_sum_of_squares_of_the_threshold(name):
    """Or lie at a bound. Found again by a search from the estimate along a fine path to the end."""
    problem = Problem(LAWS[name], COMPUTE, ERROR)
    law, n = problem.law, 29
    found = profile_intervals(problem)
    threshold = problem.estimate.rss * (1 + stats.t.ppf(0.975, problem.freedom) ** 2 / problem.freedom)
    low, high = law.bounds(problem.log_x, problem.error)
    best, data = problem.best, Data(problem.log_x[None], problem.log_error[None], np.ones((1, n)))
    for j, parameter in enumerate(law.names):
        if parameter in ("beta", "shift"):  # of which the coordinates are logarithms at other scales
            continue
        for end in (found[parameter].low, found[parameter].high):
            value = np.log(end) if parameter == "shape" else end
            if value in (pytest.approx(low[j]), pytest.approx(high[j])):
                continue
            assert min(abs(abs(value - best[j]) - step) for step in (1, 2, 4)) > 1e-6
            theta = best[None].copy()
            for at in np.linspace(best[j], value, 60):
                held_low, held_high = low.copy(), high.copy()
                held_low[j] = held_high[j] = theta[0, j] = at
                theta = minimise(law, data, theta, (held_low, held_high)).theta
            rss = 2 * minimise(law, data, theta, (held_low, held_high)).objective[0]
            assert rss == pytest.approx(threshold, rel=1e-3), parameter


def test_a_profile_walks_past_a_search_that_fails(monkeypatch):
    """The first steps of every walk are made to fail: the ends are the same."""
    from clipeval.scaling.uncertainty import profile

    x = X
    error = LAWS["power_floor"].error(x, np.array([-0.25, 60.0, 0.12])) * np.exp(
        np.random.default_rng(3).normal(0, 0.01, 24)
    )
    problem = Problem(LAWS["power_floor"], x, error)
    honest, calls = profile_intervals(problem), []

    def failing(curve, data, start, bounds):
        calls.append(1)
        found = minimise(curve, data, start, bounds)
        return type(found)(found.theta, found.objective * (1e3 if len(calls) <= 4 else 1), found.steepness)

    monkeypatch.setattr(profile, "minimise", failing)
    again = profile_intervals(problem)
    for name in problem.law.names:
        assert (again[name].low, again[name].high) == pytest.approx((honest[name].low, honest[name].high), rel=1e-5)

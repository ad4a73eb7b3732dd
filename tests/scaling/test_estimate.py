"""Estimates against the published fits, numpy, closed forms, and the equations that define them."""

from __future__ import annotations

import numpy as np
import pytest
from imagenet_cherti2023 import COMPUTE, ERROR, PARAMS, SAMPLES_SEEN, UNIQUE, WIT_COMPUTE, WIT_ERROR
from tables import fit

from clipeval.errors import MeasureError, UsageError
from clipeval.scaling.estimate import ESTIMATORS
from clipeval.scaling.laws import LAWS, LogLinear, Sigmoid
from clipeval.scaling.minimise import HUBER, Data, Loss, minimise
from clipeval.scaling.problem import Problem, noise_weights
from clipeval.scaling.quantile import quantile_line

POWER = LAWS["power"]


def noisy(rng, n=24, scatter=0.01):
    x = np.logspace(8, 13, n)
    return x, LAWS["power_floor"].error(x, np.array([-0.25, 60.0, 0.12])) * np.exp(rng.normal(0, scatter, n))


def test_published_imagenet_lines():
    laion = fit(POWER, COMPUTE, ERROR, frontier="cherti2023")
    assert laion["alpha"] == pytest.approx(-0.111388, abs=1e-6)
    assert laion["beta"] == pytest.approx(5.85806, rel=1e-5)
    assert laion.n == 5
    wit = fit(POWER, WIT_COMPUTE, WIT_ERROR)
    assert wit["alpha"] == pytest.approx(-0.163775, abs=1e-6)
    assert wit["beta"] == pytest.approx(23.1836, rel=1e-5)


@pytest.mark.parametrize(
    ("frontier", "alpha", "beta"),
    [("none", -0.1012, 4.956), ("pareto", -0.1110, 5.884), ("hull", -0.1113, 5.806), ("quantile", -0.1103, 5.648)],
)
def test_other_frontiers_of_the_same_models(frontier, alpha, beta):
    found = fit(POWER, COMPUTE, ERROR, frontier=frontier)
    assert found["alpha"] == pytest.approx(alpha, abs=6e-5)
    assert found["beta"] == pytest.approx(beta, abs=6e-4)


def test_least_squares_is_polyfit():
    rng = np.random.default_rng(0)
    x, error = noisy(rng, 17)
    weights = rng.uniform(0.3, 4, 17)
    slope, level = np.polyfit(np.log(x), np.log(error), 1, w=np.sqrt(weights))
    found = fit(POWER, x, error, weights=weights)
    assert found["alpha"] == pytest.approx(slope, rel=1e-10)
    assert found["beta"] == pytest.approx(np.exp(level), rel=1e-9)
    residual = np.log(error) - slope * np.log(x) - level
    assert found.rss == pytest.approx((weights / weights.mean() * residual**2).sum())


def test_information_criteria_by_hand():
    found = fit(POWER, COMPUTE, ERROR)
    n, k = 29, 3
    assert found.aicc == pytest.approx(n * np.log(found.rss / n) + 2 * k + 2 * k * (k + 1) / (n - k - 1))
    assert found.aicc == pytest.approx(-118.28, abs=5e-3)
    assert found.bic == pytest.approx(n * np.log(found.rss / n) + k * np.log(n))
    assert found.r2 == pytest.approx(0.667, abs=5e-4)
    assert fit(POWER, WIT_COMPUTE, WIT_ERROR).aicc == np.inf


def test_repeated_samples_explain_imagenet():
    x = np.stack([PARAMS, SAMPLES_SEEN, UNIQUE], axis=1)
    joint = fit(LAWS["joint_repeats"], x, ERROR)
    assert joint["r_star"] == pytest.approx(21.6, abs=0.05)
    assert joint.r2 == pytest.approx(0.920, abs=5e-4)
    assert fit(POWER, COMPUTE, ERROR).aicc - joint.aicc == pytest.approx(28.9, abs=0.05)
    assert fit(LogLinear(("n", "s", "u")), x, ERROR).aicc == pytest.approx(-136.8, abs=0.05)


def test_one_source_has_a_law_with_repeats():
    rng = np.random.default_rng(2)
    x = np.stack([10 ** rng.uniform(7, 9, 29), 10 ** rng.uniform(8, 11, 29), np.full(29, 4e8)], axis=1)
    planted = np.array([0.05, 100.0, -0.34, 300.0, -0.28, 15.4])
    error = LAWS["joint_repeats"].error(x, planted)
    np.testing.assert_allclose(fit(LAWS["joint_repeats"], x, error).params, planted, rtol=1e-6)


def test_a_floor_the_data_do_not_show_is_zero():
    steepening = np.exp(-0.01 * np.log(COMPUTE / 1e10) ** 2)
    found = fit(LAWS["power_floor"], COMPUTE, 5.9 * COMPUTE**-0.11 * steepening)
    assert found["e_inf"] == 0
    assert found.converged


def test_curves_reach_the_lowest_objective_of_a_fine_search():
    x, error = noisy(np.random.default_rng(5), scatter=0.04)
    found = fit(LAWS["power_floor"], x, error)
    floors = np.linspace(0, error.min(), 4001)[:-1]
    # for each floor the best power law, started from the line of ln(E - floor)
    start = np.array([[-0.25, np.log(0.3), floor] for floor in floors])
    scale = np.log(x).mean()
    shape = (len(floors), len(x))
    data = Data(*(np.broadcast_to(part, shape) for part in (np.log(x) - scale, np.log(error), np.ones(len(x)))))
    held = np.stack([np.full(len(floors), -np.inf), np.full(len(floors), -np.inf), floors], axis=1)
    searched = minimise(LAWS["power_floor"], data, start, (held, np.where(np.isinf(held), np.inf, held)))
    assert found.rss / 2 <= searched.objective.min() * (1 + 1e-9)
    assert found.rss / 2 == pytest.approx(searched.objective.min(), rel=1e-4)


def test_huber_approaches_least_absolute_residuals():
    x, error = noisy(np.random.default_rng(1), 29, 0.05)
    found = fit(POWER, x, error, loss=Loss(delta=1e-7))
    slope, level = quantile_line(np.log(x)[None], np.log(error)[None], 0.5, np.zeros(1))
    assert found["alpha"] == pytest.approx(slope[0], abs=1e-6)
    assert np.log(found["beta"]) == pytest.approx(level[0], abs=1e-4)
    assert ESTIMATORS["huber"] == HUBER


def test_huber_within_delta_is_least_squares():
    x, error = noisy(np.random.default_rng(1))
    wide = fit(LAWS["power_floor"], x, error, loss=Loss(delta=1.0))
    np.testing.assert_allclose(wide.params, fit(LAWS["power_floor"], x, error).params, rtol=1e-7)


def test_quantile_of_a_curve_leaves_a_tenth_below():
    rng = np.random.default_rng(8)
    x = np.logspace(8, 13, 200)
    truth = LAWS["power_floor"].error(x, np.array([-0.25, 60.0, 0.12]))
    found = fit(LAWS["power_floor"], x, truth * np.exp(rng.exponential(0.05, 200)), frontier="quantile")
    assert found.converged
    below = truth * np.exp(-0.05 * np.log(0.9))
    np.testing.assert_allclose(LAWS["power_floor"].error(x, found.params), below, rtol=0.01)


class OneStart(type(LAWS["power_floor"])):
    def starts(self, log_x, error):
        return super().starts(log_x, error)[:1]


def test_convergence_needs_a_second_witness():
    x, error = noisy(np.random.default_rng(3))
    alone, several = fit(OneStart(), x, error), fit(LAWS["power_floor"], x, error)
    assert several.converged
    assert len(several.starts) > 1
    assert alone.params == pytest.approx(several.params)
    assert not alone.converged


def test_a_search_cut_short_is_not_converged(monkeypatch):
    monkeypatch.setattr("clipeval.scaling.minimise.ITERATIONS", 1)
    x, error = noisy(np.random.default_rng(3))
    assert not fit(LAWS["m4"], x, error).converged


def test_noise_weights_explain_the_scatter():
    rng = np.random.default_rng(2)
    x = np.logspace(9, 12, 41)
    n_test = np.where(np.arange(41) % 2, 200, 50_000)
    truth = 6 * x**-0.12
    between = 0.03
    error = rng.binomial(n_test, np.clip(truth * np.exp(rng.normal(0, between, 41)), 0, 1)) / n_test
    weights = noise_weights(Problem(POWER, x, error), n_test)
    found = fit(POWER, x, error, weights=weights)
    residual = np.log(error) - np.log(POWER.error(x, found.params))
    assert (weights * residual**2).sum() == pytest.approx(41 - 2, rel=1e-6)
    known = (1 - error) / (error * n_test)
    np.testing.assert_allclose(1 / weights - known, np.full(41, (1 / weights - known)[0]), rtol=1e-6)
    assert (1 / weights - known)[0] ** 0.5 == pytest.approx(between, abs=0.012)


def test_noise_weights_without_scatter_are_binomial():
    x = np.logspace(9, 12, 7)
    error = 6 * x**-0.12
    n_test = np.full(7, 1000.0)
    np.testing.assert_allclose(noise_weights(Problem(POWER, x, error), n_test), error * n_test / (1 - error))


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        ([1.0, 2.0, 3.0], [0.5, 0.0, 0.2], "error of point 1 is 0.0"),
        ([1.0, 2.0, 3.0], [0.5, 0.3, np.nan], "error of point 2 is nan"),
        ([1.0, -2.0, 3.0], [0.5, 0.3, 0.2], "scale of point 1 is -2.0"),
        ([1.0, 2.0, np.inf], [0.5, 0.3, 0.2], "scale of point 2 is inf"),
        ([2.0, 2.0, 2.0], [0.5, 0.3, 0.2], "do not vary"),
        ([2.0], [0.5], "only 1 points"),
        ([1.0, 2.0], [0.5, 0.3, 0.2], "needs 1 scale"),
    ],
)
def test_bad_points_are_named(x, error, message):
    with pytest.raises(MeasureError, match=message):
        fit(POWER, np.array(x), np.array(error))


def test_scales_that_vary_together_are_refused():
    x = np.stack([np.logspace(1, 3, 9), np.logspace(2, 6, 9)], axis=1)
    with pytest.raises(MeasureError, match="vary together"):
        fit(LAWS["loglinear"], x, np.linspace(0.5, 0.3, 9))


def test_what_does_not_go_together_is_refused():
    x = np.stack([COMPUTE, COMPUTE[::-1]], axis=1)
    with pytest.raises(UsageError, match="orders models by one scale, not 2"):
        fit(LAWS["loglinear"], x, ERROR, frontier="pareto")
    with pytest.raises(UsageError, match="does not go with weights"):
        fit(POWER, COMPUTE, ERROR, frontier="quantile", weights=np.ones(29))
    with pytest.raises(UsageError, match="a loss of its own"):
        fit(POWER, COMPUTE, ERROR, frontier="quantile", loss=HUBER)


def test_sigmoid_of_errors_above_chance_is_fitted():
    error = np.array([0.97, 0.91, 0.83, 0.7, 0.5, 0.3, 0.2])
    found = fit(Sigmoid(chance=0.1), np.logspace(7, 12, 7), error)
    assert found.converged
    assert found["alpha"] < 0

"""Laws against their published formulas, numerical derivatives, a root finder, and planted parameters."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import brentq
from tables import fit

from clipeval.errors import MeasureError
from clipeval.scaling.estimate import Estimate
from clipeval.scaling.laws import LAWS, LogLinear, Sigmoid
from clipeval.scaling.minimise import HUBER

X = np.logspace(8, 13, 24)
N, D = (grid.ravel() for grid in np.meshgrid(np.logspace(7, 10, 6), np.logspace(9, 11.5, 5)))
SIZES = np.random.default_rng(0).permutation(np.repeat(np.logspace(7.5, 9.5, 6), 5))
SEEN, UNIQUE = np.repeat(np.logspace(8, 10.6, 10), 3), np.tile([8e7, 4e8, 2e9], 10)

PLANTED = {
    "power": (X, [-0.1114, 5.9]),
    "power_floor": (X, [-0.25, 60.0, 0.12]),
    "shifted": (X, [-0.3, 500.0, 1e9]),
    "shifted_floor": (X, [-0.3, 400.0, 1e9, 0.1]),
    "m4": (X, [-0.25, np.exp(4.2) * (0.999 - 0.1) ** 0.8, 0.1, 0.999, 0.8]),
    "broken": (X, [-0.3, 200.0, -0.05, 3e10, 0.5, 0.05]),
    "sigmoid": (X, [-0.3, 500.0]),
    "loglinear": (np.stack([N, D], axis=1), [-0.1, -0.2, 300.0]),
    "joint_nd": (np.stack([N, D], axis=1), [1.69, 406.4, -0.34, 410.7, -0.28]),
    "joint_shared": (np.stack([N, D], axis=1), [1.69, 406.4, 410.7, -0.31]),
    "joint_repeats": (np.stack([SIZES, SEEN, UNIQUE], axis=1), [0.1, 100.0, -0.34, 300.0, -0.28, 15.4]),
}


def test_every_law_is_planted():
    assert set(PLANTED) == set(LAWS)
    assert all(law.name == name and law.inputs == (1 if PLANTED[name][0].ndim == 1 else PLANTED[name][0].shape[1])
               for name, law in LAWS.items())  # fmt: skip


@pytest.mark.parametrize("name", LAWS)
def test_planted_parameters_are_recovered(name):
    x, params = PLANTED[name]
    error = LAWS[name].error(x, np.array(params))
    found = fit(LAWS[name], x, error)
    np.testing.assert_allclose(found.params, params, rtol=1e-6)
    assert isinstance(found, Estimate)
    assert found.converged
    assert found.r2 == pytest.approx(1)


@pytest.mark.parametrize("name", LAWS)
def test_huber_recovers_planted_parameters_despite_outliers(name):
    x, params = PLANTED[name]
    error = LAWS[name].error(x, np.array(params))
    error[[3, 11]] *= [1.4, 1.7]
    found = fit(LAWS[name], x, error, loss=HUBER)
    assert found.converged
    np.testing.assert_allclose(LAWS[name].error(x, found.params)[[0, 7, 20]], error[[0, 7, 20]], rtol=3e-3)


@pytest.mark.parametrize("name", LAWS)
def test_gradient_is_the_derivative(name):
    law, (x, params) = LAWS[name], PLANTED[name]
    log_x = np.log(x)[None]
    scale = law.log_scale(log_x[0])
    theta = law.coordinates(np.array(params), scale)
    _, gradient = law.log_error(log_x - scale, theta[None])
    steps = 1e-6 * np.eye(len(theta))
    ahead, behind = (
        np.array([law.log_error(log_x - scale, (theta + s)[None])[0][0] for s in sign * steps]) for sign in (1, -1)
    )
    np.testing.assert_allclose(gradient[0], ((ahead - behind) / 2e-6).T, atol=5e-9)


@pytest.mark.parametrize("name", LAWS)
def test_coordinates_and_parameters_are_inverse(name):
    law, (x, params) = LAWS[name], PLANTED[name]
    scale = law.log_scale(np.log(x))
    np.testing.assert_allclose(law.parameters(law.coordinates(np.array(params), scale), scale), params, rtol=1e-12)


@pytest.mark.parametrize("name", LAWS)
def test_error_of_draws_is_the_error_of_each(name):
    law, (x, params) = LAWS[name], PLANTED[name]
    draws = np.array(params) * np.array([[1.0], [1.01], [0.98]])
    together = law.error(x[:5], draws)
    assert together.shape == (3, 5)
    np.testing.assert_allclose(together, [law.error(x[:5], draw) for draw in draws], rtol=1e-14)


@pytest.mark.parametrize("name", [name for name, law in LAWS.items() if law.inputs == 1 and name != "broken"])
def test_inverse_finds_the_scale(name):
    law, (x, params) = LAWS[name], PLANTED[name]
    error = law.error(x, np.array(params))
    np.testing.assert_allclose(law.inverse(error, np.array(params)), x, rtol=1e-10)
    np.testing.assert_allclose(law.inverse(error[:3], np.array([params, params])), [x[:3], x[:3]], rtol=1e-10)


def test_inverse_is_nan_where_the_error_is_never_reached():
    assert np.isnan(LAWS["power_floor"].inverse(np.array([0.1]), np.array([-0.25, 60.0, 0.12]))).all()
    assert np.isnan(LAWS["m4"].inverse(np.array([0.05, 1.0]), np.array([-0.25, 60.0, 0.1, 0.99, 0.8]))).all()
    assert np.isnan(LAWS["sigmoid"].inverse(np.array([1.2]), np.array([-0.3, 500.0]))).all()
    assert np.isnan(LAWS["shifted"].inverse(np.array([1.2]), np.array([-0.3, 500.0, 1e9]))).all()


@pytest.mark.parametrize("name", [name for name, law in LAWS.items() if law.inputs == 1])
def test_alpha_and_beta_describe_large_scale(name):
    law, (_, params) = LAWS[name], PLANTED[name]
    by_name = dict(zip(law.names, params, strict=True))
    x = np.array([1e28])
    falling = law.error(x, np.array(params)) - by_name.get("e_inf", 0.0)
    assert falling == pytest.approx(by_name["beta"] * x ** by_name["alpha"], rel=1e-5)


def test_m4_solves_its_equation():
    alpha, b, e_inf, e_0, shape = -0.25, np.exp(4.2), 0.1, 0.999, 0.8
    x = np.array([1e2, 1e7, 3e9, 1e14])

    def implicit(error, at):
        return np.log((error - e_inf) / (e_0 - error) ** shape) - np.log(b * at**alpha)

    oracle = [brentq(implicit, e_inf + 1e-15, e_0 - 1e-15, args=(at,), xtol=1e-15) for at in x]
    found = LAWS["m4"].error(x, np.array([alpha, b * (e_0 - e_inf) ** shape, e_inf, e_0, shape]))
    np.testing.assert_allclose(found, oracle, rtol=1e-9)


def test_broken_law_is_the_published_one():
    a, b, c_0, c_1, d, f = 0.05, 3.0, 0.05, 0.25, 3e10, 0.5
    published = a + b * X**-c_0 * (1 + (X / d) ** (1 / f)) ** (-c_1 * f)
    alpha = -c_0 - c_1
    found = LAWS["broken"].error(X, np.array([alpha, b * d**c_1, -c_0, d, f, a]))
    np.testing.assert_allclose(found, published, rtol=1e-12)


def test_sigmoid_is_a_logistic_link_above_chance():
    w, b, classes = 0.4, -9.0, 7
    accuracy = 1 / classes + (1 - 1 / classes) / (1 + np.exp(-(w * np.log(X) + b)))
    law = Sigmoid(chance=1 / classes)
    found = fit(law, X, 1 - accuracy)
    np.testing.assert_allclose(found.params, [-w, (1 - 1 / classes) * np.exp(-b)], rtol=1e-9)
    assert law.error(np.array([1e-30]), found.params) == pytest.approx(1 - 1 / classes)


def test_repeats_are_worth_what_datablations_says():
    # appendix A of Muennighoff et al. 2023, and the loss their README prints for two allocations
    a, b, e, exponent, r_data, r_size = (
        np.exp(6.255414),
        np.exp(7.3049974),
        np.exp(0.6254804),
        0.3526596,
        15.387756,
        5.309743,
    )
    ratio = (a / b) ** (1 / (2 * exponent))
    for size, seen, loss in ((6.34e9, 242e9, 2.2256440889984477), (8.67e9, 178e9, 2.2269634075087867)):
        unique = 25e9
        # the compute-optimal size for the unique data, beyond which parameters are in excess
        optimal = min(size, unique * ratio**2)
        excess = optimal + optimal * r_size * (1 - np.exp(-(size / optimal - 1) / r_size))
        found = LAWS["joint_repeats"].error(
            np.array([[excess, seen, unique]]), np.array([e, a, -exponent, b, -exponent, r_data])
        )
        assert found[0] == pytest.approx(loss, rel=1e-12)


def test_samples_seen_once_are_worth_one_each():
    law, params = LAWS["joint_repeats"], np.array([0.1, 100.0, -0.3, 300.0, -0.3, 5.0])
    once = law.error(np.array([[1e8, 3e8, 1e9]]), params)
    assert once == pytest.approx(LAWS["joint_nd"].error(np.array([[1e8, 3e8]]), params[:5]), rel=1e-14)


def test_loglinear_names_its_columns():
    law = LogLinear(("params", "samples_seen", "unique_samples"))
    assert law.names == ("alpha_params", "alpha_samples_seen", "alpha_unique_samples", "beta")
    x = np.exp(np.random.default_rng(3).normal(20, 2, (17, 3)))
    error = 4 * x[:, 0] ** -0.1 * x[:, 1] ** -0.02 * x[:, 2] ** 0.03
    np.testing.assert_allclose(fit(law, x, error).params, [-0.1, -0.02, 0.03, 4], rtol=1e-9)


def test_too_few_points_are_refused():
    with pytest.raises(MeasureError, match="5 parameters, but there are only 4 points"):
        fit(LAWS["m4"], X[:4], np.array([0.5, 0.4, 0.3, 0.25]))


def test_a_shared_exponent_is_the_authors_form():
    """Gadre et al. 2024 write e_inf + (a M**eta + b M**-eta) C**-eta with M = D / N and C = 6 N D."""
    eta, a, b, e_inf = 0.12, 140.0, 190.0, 1.6
    m, c = D / N, 6 * N * D
    authors = e_inf + (a * m**eta + b * m**-eta) * c**-eta
    params = np.array([e_inf, a * 6**-eta, b * 6**-eta, -2 * eta])
    np.testing.assert_allclose(LAWS["joint_shared"].error(np.stack([N, D], axis=1), params), authors, rtol=1e-12)

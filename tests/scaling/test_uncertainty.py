"""Intervals: closed forms, published bootstrap figures, and how often they hold the truth in simulated data sets."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from imagenet_cherti2023 import COMPUTE, ERROR, PARAMS, SAMPLES_SEEN, UNIQUE, WIT_COMPUTE, WIT_ERROR
from scipy import stats
from scipy.optimize import least_squares
from tables import fit

from clipeval.scaling.frontier import on_frontier
from clipeval.scaling.laws import LAWS, LogLinear
from clipeval.scaling.minimise import HUBER, LEAST_SQUARES, Data, minimise
from clipeval.scaling.problem import Problem, noise_weights
from clipeval.scaling.uncertainty.methods import uncertainty
from clipeval.scaling.uncertainty.permutation import permutation_interval, share_below
from clipeval.scaling.uncertainty.profile import profile_intervals

POWER = LAWS["power"]
ALPHA, BETA, DECADE = -0.1114, 5.9, np.log(10)
LOG_X = np.log(COMPUTE)
FLOOR = np.array([-0.25, 60.0, 0.12])
X = np.logspace(8, 13, 24)


def excess(rng, shape):
    """One-sided: how far models lie above the frontier, 0.05 dex on average."""
    return rng.exponential(0.05 * DECADE, shape)


def scatter(rng, shape):
    return rng.normal(0, 0.02 * DECADE, shape)


def simulated(noise, seed, n=29):
    rng = np.random.default_rng(seed)
    x = COMPUTE if n == 29 else np.sort(np.random.default_rng(5).choice(COMPUTE, n, replace=False))
    return x, BETA * x**ALPHA * np.exp(noise(rng, n))


def coverage(of_run, runs):
    return np.mean([of_run(run) for run in range(runs)], axis=0)


def alpha_covered(noise, run, n=29, **options):
    draws = options.pop("draws")
    x, error = simulated(noise, run, n)
    interval = uncertainty(Problem(POWER, x, error, draws=draws, seed=run + 10**6, **options)).intervals["alpha"]
    return interval.low <= ALPHA <= interval.high


# --- exact and published values


def test_three_points_have_a_t_interval():
    found = uncertainty(Problem(POWER, WIT_COMPUTE, WIT_ERROR))
    alpha = found.intervals["alpha"]
    assert (alpha.low, alpha.high) == pytest.approx((-0.2774, -0.0501), abs=1e-4)
    assert alpha.method == "Student t, 1 degrees of freedom"
    line = stats.linregress(np.log(WIT_COMPUTE), np.log(WIT_ERROR))
    assert found.alpha_se == pytest.approx(line.stderr)
    assert found.alpha_df == 1
    low, high = line.intercept + np.array([-1, 1]) * stats.t.ppf(0.975, 1) * line.intercept_stderr
    assert np.log([found.intervals["beta"].low, found.intervals["beta"].high]) == pytest.approx([low, high])


@pytest.mark.parametrize("loss", [LEAST_SQUARES, HUBER])
def test_two_points_have_no_interval(loss):
    x, error = WIT_COMPUTE[:2], WIT_ERROR[:2]
    found = uncertainty(Problem(POWER, x, error, loss=loss))
    assert np.isnan([found.intervals["alpha"].low, found.intervals["beta"].high, found.alpha_se]).all()
    assert found.draws.shape == (0, 2)
    assert "2 " in found.intervals["alpha"].reason


def test_paper_bins_bootstrap_is_the_published_one():
    again = np.random.default_rng(0).integers(29, size=(20_000, 29))
    alphas = Problem(POWER, COMPUTE, ERROR, "cherti2023").refit(LOG_X[again], np.log(ERROR)[again])[:, 0]
    assert np.quantile(alphas, (0.025, 0.975)) == pytest.approx((-0.137, -0.088), abs=0.003)


def test_bins_have_an_exponent_but_no_level():
    problem = Problem(POWER, COMPUTE, ERROR, frontier="cherti2023")
    found = uncertainty(problem)
    assert found.intervals["alpha"].low < problem.estimate["alpha"] < found.intervals["alpha"].high < -0.08
    assert np.isnan(found.intervals["beta"].low)
    assert "number of models" in found.intervals["beta"].reason
    points = problem.points(LOG_X[None], np.log(ERROR)[None])
    line = stats.linregress(points.log_x[0], points.log_error[0])
    half = stats.t.ppf(0.975, 3) * line.stderr
    assert np.quantile(found.draws[:, 0], (0.025, 0.975)) == pytest.approx(
        (line.slope - half, line.slope + half), abs=1e-3
    )
    assert found.method.endswith("the frontier's points taken as given")


def test_draws_of_a_line_follow_student():
    found = uncertainty(Problem(POWER, COMPUTE, ERROR, draws=40_000, seed=3))
    alpha, beta = found.intervals["alpha"], found.intervals["beta"]
    assert np.quantile(found.draws[:, 0], (0.025, 0.975)) == pytest.approx((alpha.low, alpha.high), abs=4e-4)
    assert np.log(np.quantile(found.draws[:, 1], (0.025, 0.975))) == pytest.approx(
        np.log((beta.low, beta.high)), abs=0.02
    )


def test_intervals_of_several_exponents_are_scipys():
    rng = np.random.default_rng(0)
    x = np.exp(rng.normal(20, 2, (19, 2)))
    error = 3 * x[:, 0] ** -0.1 * x[:, 1] ** -0.05 * np.exp(rng.normal(0, 0.1, 19))
    law = LogLinear(("n", "d"))
    found = uncertainty(Problem(law, x, error)).intervals
    features = np.column_stack([np.log(x), np.ones(19)])
    best, rss, *_ = np.linalg.lstsq(features, np.log(error), rcond=None)
    half = stats.t.ppf(0.975, 16) * np.sqrt(np.diag(np.linalg.inv(features.T @ features)) * rss[0] / 16)
    for j, name in enumerate(law.names[:2]):
        assert (found[name].low, found[name].high) == pytest.approx((best[j] - half[j], best[j] + half[j]))
    assert np.log((found["beta"].low, found["beta"].high)) == pytest.approx((best[2] - half[2], best[2] + half[2]))


def test_profile_ends_are_where_the_sum_of_squares_says():
    rng = np.random.default_rng(1)
    law, error = LAWS["power_floor"], LAWS["power_floor"].error(X, FLOOR) * np.exp(rng.normal(0, 0.01, 24))
    estimate = fit(law, X, error)
    found = profile_intervals(Problem(law, X, error))
    limit = estimate.rss * (1 + stats.t.ppf(0.975, 21) ** 2 / 21)
    for end in (found["e_inf"].low, found["e_inf"].high):

        def residuals(theta, floor=end):
            return np.log(error) - np.log(np.exp(theta[1] + theta[0] * np.log(X / 1e10)) + floor)

        assert 2 * least_squares(residuals, [-0.25, np.log(0.19)], xtol=1e-12).cost == pytest.approx(limit, rel=1e-6)
    assert found["alpha"].low < estimate["alpha"] < found["alpha"].high


def test_a_floor_that_is_not_identified_reaches_zero():
    law, best = LAWS["power_floor"], on_frontier("pareto", COMPUTE, ERROR)
    x, error = COMPUTE[best], ERROR[best]
    found = uncertainty(Problem(law, x, error, draws=10)).intervals["e_inf"]
    assert found.low == 0
    assert found.high == pytest.approx(0.168, abs=1e-3)


def test_inaccurate_scales_widen_intervals():
    tolerance = np.full(29, 0.5)
    for options in ({}, {"frontier": "cherti2023"}, {"frontier": "quantile"}):
        exact, wide = (
            uncertainty(Problem(POWER, COMPUTE, ERROR, draws=4000, x_tolerance=moved, **options)).intervals["alpha"]
            for moved in (None, tolerance)
        )
        assert wide.high - wide.low > exact.high - exact.low


def test_widening_adds_in_quadrature():
    tolerance = np.full(29, 0.219)
    estimate = fit(POWER, COMPUTE, ERROR)
    narrow, wide = (
        uncertainty(Problem(POWER, COMPUTE, ERROR, x_tolerance=t, draws=40_000)).intervals["alpha"]
        for t in (None, tolerance)
    )
    # dy/dx of the line is alpha: an error u of ln x moves the slope by about -alpha * S_xu / S_xx
    centred = LOG_X - LOG_X.mean()
    u = np.log1p(tolerance[0] * np.random.default_rng(0).uniform(-1, 1, 100_000)).std()
    spread = stats.t.ppf(0.975, 27) * abs(estimate["alpha"]) * u / np.sqrt(centred @ centred)
    half = (narrow.high - narrow.low) / 2
    assert (wide.high - wide.low) / 2 == pytest.approx(np.hypot(half, spread), rel=5e-3)


def test_same_seed_same_interval():
    one, same, other = (
        uncertainty(Problem(POWER, COMPUTE, ERROR, frontier="quantile", seed=seed)).intervals["alpha"]
        for seed in (1, 1, 2)
    )
    assert one == same != other


def test_permutation_interval_of_least_squares_is_close_to_student():
    x, error = simulated(scatter, 11)
    problem = Problem(POWER, x, error)
    found = permutation_interval(problem, permutations=4000)
    student = uncertainty(problem).intervals["alpha"]
    assert (found.low, found.high) == pytest.approx((student.low, student.high), abs=1.5e-3)


# --- how often 95 % intervals hold the truth


@pytest.mark.parametrize("noise", [excess, scatter])
def test_coverage_of_student(noise):
    covered = coverage(lambda run: alpha_covered(noise, run, draws=1), 4000)
    assert 0.94 <= covered <= 0.96


def test_coverage_with_known_evaluation_noise():
    def of_run(run):
        rng = np.random.default_rng(run)
        n_test = np.where(np.arange(29) % 3, 50_000, 400)
        true = BETA * COMPUTE**ALPHA * np.exp(rng.normal(0, 0.01, 29))
        error = np.clip(rng.binomial(n_test, true), 1, None) / n_test
        problem = Problem(POWER, COMPUTE, error, draws=1)
        interval = uncertainty(replace(problem, weights=noise_weights(problem, n_test))).intervals["alpha"]
        return interval.low <= ALPHA <= interval.high

    assert 0.93 <= coverage(of_run, 1000) <= 0.97


@pytest.mark.parametrize(
    ("noise", "below"),
    [(excess, -0.05 * DECADE * np.log(0.9)), (scatter, 0.02 * DECADE * stats.norm.ppf(0.1))],
)
def test_coverage_of_the_quantile_frontier(noise, below):
    at = np.array([COMPUTE[0], np.exp(LOG_X.mean()), COMPUTE[-1], 10 * COMPUTE[-1]])
    level = BETA * at**ALPHA * np.exp(below)

    def of_run(run):
        x, error = simulated(noise, run)
        found = uncertainty(Problem(POWER, x, error, frontier="quantile", draws=250, seed=run + 10**6))
        low, high = np.quantile(POWER.error(at, found.draws), (0.025, 0.975), axis=0)
        alpha = found.intervals["alpha"]
        beta = found.intervals["beta"]
        parameters = alpha.low <= ALPHA <= alpha.high, beta.low <= BETA * np.exp(below) <= beta.high
        return np.append((low <= level) & (level <= high), parameters)

    covered = coverage(of_run, 1500)
    assert 0.93 <= min(covered) <= max(covered) <= 0.97, covered


def test_coverage_of_the_quantile_frontier_of_few_models():
    assert 0.93 <= coverage(lambda run: alpha_covered(scatter, run, 14, frontier="quantile", draws=250), 1000) <= 0.97
    x, error = simulated(scatter, 0, 14)
    found = uncertainty(Problem(POWER, x, error, frontier="quantile"))
    assert found.reason == "14 models do not show where the best tenth lies"
    assert len(found.draws) == 0


def test_the_quantile_of_a_curve_has_no_interval():
    # a bootstrap of it held a planted e_inf in 92 % of data sets, and the beta of a sigmoid in 91 %
    law, error = LAWS["power_floor"], LAWS["power_floor"].error(COMPUTE, FLOOR)
    found = uncertainty(Problem(law, COMPUTE, error, frontier="quantile"))
    assert np.isnan([found.intervals["e_inf"].low, found.intervals["alpha"].high]).all()
    assert "too narrow" in found.reason
    assert len(found.draws) == 0


@pytest.mark.parametrize("name", ["cherti2023", "pareto", "hull"])
@pytest.mark.parametrize("noise", [excess, scatter])
def test_coverage_of_the_best_models(name, noise):
    # the interval holds the truth where the permutation test does not reject it
    def of_run(run):
        orders = np.argsort(np.random.default_rng(run + 10**6).random((300, 29)), axis=1)
        share = share_below(Problem(POWER, *simulated(noise, run), name), ALPHA, orders)
        return 0.025 <= share <= 0.975

    assert 0.93 <= coverage(of_run, 1000) <= 0.97


def test_coverage_of_huber():
    covered = coverage(lambda run: alpha_covered(scatter, run, 14, loss=HUBER, draws=150), 1000)
    assert 0.93 <= covered <= 0.97


CURVES = {
    "power_floor": FLOOR,
    "shifted": np.array([-0.3, 500.0, 1e9]),
    "shifted_floor": np.array([-0.3, 400.0, 1e9, 0.1]),
    "m4": np.array([-0.25, 61.25, 0.1, 0.95, 0.8]),
    "broken": np.array([-0.3, 200.0, -0.05, 3e10, 0.5, 0.05]),
    "sigmoid": np.array([-0.3, 500.0]),
}


JOINT = np.stack([PARAMS, SAMPLES_SEEN, UNIQUE], axis=1)


@pytest.mark.parametrize("name", [*CURVES, "joint_repeats"])
def test_coverage_of_profiles(name):
    # a value lies inside its profile interval where the sum of squares with it held is below the threshold
    law, runs, joint = LAWS[name], 1000, name == "joint_repeats"
    x, sigma = (JOINT, 0.02) if joint else (X, 0.01)
    params = fit(law, x, ERROR).params if joint else CURVES[name]
    log_error = np.log(law.error(x, params)) + np.random.default_rng(1).normal(0, sigma, (runs, len(x)))
    scale = law.log_scale(np.log(x)) if joint else np.zeros(())
    log_x = np.broadcast_to(np.log(x) - scale, (runs, *x.shape))
    data = Data(log_x, log_error, np.ones(log_error.shape))
    truth = law.coordinates(params, scale)
    low, high = law.bounds(data.log_x, np.exp(log_error))
    start = np.broadcast_to(truth, (runs, len(truth)))
    best = minimise(law, data, start, (low, high)).objective
    freedom = len(x) - len(truth)
    for j, parameter in enumerate(law.names):
        if parameter in ("a", "b"):  # of a joint law, at scales of 1 instead of the mean
            continue
        held_low, held_high = (np.broadcast_to(bound, start.shape).copy() for bound in (low, high))
        held_low[:, j] = held_high[:, j] = truth[j]
        held = minimise(law, data, start, (held_low, held_high)).objective
        inside = (held / best - 1) * freedom <= stats.t.ppf(0.975, freedom) ** 2
        assert 0.93 <= inside.mean() <= 0.97, parameter


def test_coverage_of_a_curve_beyond_the_data(monkeypatch):
    monkeypatch.setattr("clipeval.scaling.uncertainty.methods.profile_intervals", lambda *_: {})
    law, at = LAWS["power_floor"], np.array([1e8, 1e11, 1e14])
    truth = law.error(at, FLOOR)

    def of_run(run):
        error = law.error(X, FLOOR) * np.exp(np.random.default_rng(run).normal(0, 0.01, 24))
        draws = uncertainty(Problem(law, X, error, draws=200, seed=run + 10**6)).draws
        low, high = np.quantile(law.error(at, draws), (0.025, 0.975), axis=0)
        return (low <= truth) & (truth <= high)

    covered = coverage(of_run, 1000)
    assert np.all((covered >= 0.93) & (covered <= 0.97)), covered

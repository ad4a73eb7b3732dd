"""Comparisons of sources, against closed forms, scipy's Welch test and simulated data with a known answer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from imagenet_cherti2023 import COMPUTE, WIT_COMPUTE
from scipy import stats
from tables import fit

from clipeval.scaling.estimate import Estimate
from clipeval.scaling.fitted import Fit
from clipeval.scaling.laws import LAWS
from clipeval.scaling.points import Checkpoints
from clipeval.scaling.problem import Problem
from clipeval.scaling.questions.compare import A_BETTER, B_BETTER, UNDETERMINED, compare, compare_two
from clipeval.scaling.questions.exponents import PERMUTATION, difference
from clipeval.scaling.questions.matched import matched
from clipeval.scaling.recipe import Recipe, fit_one, fit_problem
from clipeval.scaling.uncertainty import resample
from clipeval.scaling.uncertainty.methods import Uncertainty, uncertainty
from clipeval.scaling.validation import NO_SCALING, SCALING
from clipeval.stats.significance import COCHRAN_COX, WELCH, holm, t_test

CELL = ("zeroshot_classification", "d", "acc1", None)


def checkpoints(source, x, error, **columns):
    table = pd.DataFrame({"model": [f"{source}{i}" for i in range(len(x))], **columns})
    x, error = np.asarray(x, dtype=float), np.asarray(error, dtype=float)
    return Checkpoints(CELL, source, x, error, np.full(len(x), np.nan), table)


def law(source, alpha, beta, x=(1e9, 1e10, 1e11, 1e12), se=0.001, df=8.0, draws=None, verdict=SCALING):
    """A fit of E = beta * x**alpha with a given uncertainty."""
    power = LAWS["power"]
    x = np.asarray(x, dtype=float)
    params = np.array([alpha, beta])
    estimate = Estimate("power", params, power.names, len(x), 0.0, 1.0, 0.0, 0.0)
    draws = np.tile(params, (100, 1)) if draws is None else draws
    known = Uncertainty({}, draws, "given", alpha_se=se, alpha_df=df)
    points = checkpoints(source, x, beta * x**alpha)
    return Fit(points, Problem(power, points.x, points.error), estimate, known, verdict)


def test_holm_by_hand():
    assert holm(np.array([0.01, 0.04, 0.03, np.nan, 0.005])) == pytest.approx(
        [0.03, 0.06, 0.06, np.nan, 0.02], nan_ok=True
    )
    assert holm(np.array([0.9, 0.8])).tolist() == [1.0, 1.0]
    assert len(holm(np.array([]))) == 0


def test_exponents_are_compared_by_welchs_test():
    rng = np.random.default_rng(5)
    a, b = rng.normal(-0.10, 0.02, 7), rng.normal(-0.15, 0.05, 5)
    expected = stats.ttest_ind(a, b, equal_var=False)
    found = compare_two(
        law("a", a.mean(), 2.0, se=a.std(ddof=1) / 7**0.5, df=6),
        law("b", b.mean(), 2.0, se=b.std(ddof=1) / 5**0.5, df=4),
    )
    interval = expected.confidence_interval()
    assert found.alpha.delta == pytest.approx(a.mean() - b.mean())
    assert found.alpha.p == pytest.approx(expected.pvalue)
    assert (found.alpha.low, found.alpha.high) == pytest.approx((interval.low, interval.high))


def slopes(x, noise):
    """Slopes and their variances ``[runs]`` of data sets ``noise`` ``[runs, n]`` about a flat line."""
    centred = np.log(x) - np.log(x).mean()
    slope = noise @ centred / (centred @ centred)
    rss = ((noise - noise.mean(1, keepdims=True) - slope[:, None] * centred) ** 2).sum(1)
    return slope, rss / (len(x) - 2) / (centred @ centred)


def rejected(x_a, sd_a, x_b, sd_b, runs=10_000):
    rng = np.random.default_rng(1)
    a, variance_a = slopes(x_a, rng.normal(0, sd_a, (runs, len(x_a))))
    b, variance_b = slopes(x_b, rng.normal(0, sd_b, (runs, len(x_b))))
    df = np.array([len(x_a), len(x_b)]) - 2.0
    variances = np.stack([variance_a, variance_b], axis=1)
    found = [t_test(delta, variance, df) for delta, variance in zip(a - b, variances, strict=True)]
    return np.mean([f.p < 0.05 for f in found]), {f.test for f in found}


@pytest.mark.parametrize(
    ("n_a", "sd_a", "n_b", "sd_b"), [(29, 0.05, 15, 0.05), (10, 0.05, 10, 0.05), (6, 0.1, 6, 0.02), (7, 0.02, 11, 0.1)]
)
def test_equal_exponents_are_rejected_in_five_percent(n_a, sd_a, n_b, sd_b):
    share, tests = rejected(np.geomspace(1e9, 1e12, n_a), sd_a, np.geomspace(1e9, 1e12, n_b), sd_b)
    assert tests == {WELCH}
    assert 0.04 <= share <= 0.06


@pytest.mark.parametrize("sd", [0.01, 0.05, 0.15])
def test_equal_exponents_of_three_points_are_rejected_in_at_most_six_percent(sd):
    share, tests = rejected(COMPUTE, 0.1, WIT_COMPUTE, sd)
    assert tests == {COCHRAN_COX}
    assert 0.02 <= share <= 0.065  # 6 % and what 10,000 data sets leave uncertain


@pytest.mark.parametrize("kind", ["exponential", "normal"])
def test_equal_exponents_of_frontiers_are_rejected_in_five_percent(kind, monkeypatch):
    monkeypatch.setattr("clipeval.scaling.questions.exponents._PERMUTATIONS", 160)
    rng, found = np.random.default_rng(2), law("a", -0.1114, 5.9, x=COMPUTE, se=0.005, df=27.0)

    def simulated():
        noise = 0.1 * (rng.exponential(size=29) if kind == "exponential" else rng.normal(size=29))
        points = replace(found.points, error=found.points.error * np.exp(noise))
        estimate = fit(found.law, points.x, points.error, frontier="quantile")
        return replace(
            found, points=points, problem=Problem(found.law, points.x, points.error, "quantile"), estimate=estimate
        )

    tests = [difference(simulated(), simulated()) for _ in range(2000)]
    assert {f.test for f in tests} == {PERMUTATION}
    assert 0.04 <= np.mean([f.p < 0.05 for f in tests]) <= 0.06
    assert 0.93 <= np.mean([f.low <= 0 <= f.high for f in tests]) <= 0.97


@pytest.mark.parametrize("kind", ["exponential", "normal"])
def test_two_hundred_models_need_neither_permutations_nor_blurred_errors(kind):
    """At eight scales, as of a ladder: equal exponents are rejected in 5 %, intervals of the line hold it in 95 %."""
    rng, found = np.random.default_rng(2), law("a", -0.1114, 5.9, x=np.repeat(np.geomspace(1e9, 1e12, 8), 25))
    quantile = 0.1 * (-np.log(0.9) if kind == "exponential" else stats.norm.ppf(0.1))
    at = np.array([1e9, 3e10, 1e13])
    truth, held = found.law.error(at, np.array([-0.1114, 5.9])) * np.exp(quantile), []

    def simulated(seed):
        noise = 0.1 * (rng.exponential(size=200) if kind == "exponential" else rng.normal(size=200))
        points = replace(found.points, error=found.points.error * np.exp(noise))
        problem = Problem(found.law, points.x, points.error, "quantile", draws=300, seed=seed)
        known = uncertainty(problem)
        low, high = np.quantile(found.law.error(at, known.draws), (0.025, 0.975), axis=0)
        held.append((low <= truth) & (truth <= high))
        return replace(found, points=points, problem=problem, estimate=problem.estimate, known=known)

    tests = [difference(simulated(run), simulated(run + 1000)) for run in range(300)]
    assert {f.test for f in tests} == {WELCH}
    assert 0.03 <= np.mean([f.p < 0.05 for f in tests]) <= 0.07
    assert 0.93 <= np.mean(held, axis=0).min() <= np.mean(held, axis=0).max() <= 0.97


def test_crossovers_lie_in_their_intervals():
    rng, power = np.random.default_rng(3), LAWS["power"]
    x, truth, inside = np.geomspace(1e10, 5e12, 10), 2.5e11, []
    for run in range(2500):
        fits = []
        for seed, (source, alpha) in enumerate((("a", -0.11), ("b", -0.16))):
            error = 0.3 * (x / truth) ** alpha * np.exp(rng.normal(0, 0.046, 10))
            found = law(source, alpha, 1.0, x=x)
            estimate = fit(power, x, error)
            known = uncertainty(Problem(power, x, error, draws=400, seed=2 * run + seed))
            fits.append(replace(found, estimate=estimate, known=known))
        pair = compare_two(*fits)
        inside.append(pair.crossover_low <= truth <= pair.crossover_high)
    assert 0.93 <= np.mean(inside) <= 0.97


def test_verdict_names_the_source_whose_error_falls_faster():
    assert compare([law("a", -0.2, 2.0), law("b", -0.1, 2.0)])[0].verdict == A_BETTER
    assert compare([law("a", -0.1, 2.0), law("b", -0.2, 2.0)])[0].verdict == B_BETTER
    assert compare([law("a", -0.1, 2.0, se=0.1), law("b", -0.2, 2.0)])[0].verdict == UNDETERMINED


def test_p_is_corrected_over_all_comparisons_of_the_call():
    fits = [law("a", -0.1, 2.0, se=0.01), law("b", -0.13, 2.0, se=0.005), law("c", -0.2, 3.0, se=0.01)]
    found = compare(fits)
    assert [(c.source_a, c.source_b) for c in found] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert [c.p_holm for c in found] == pytest.approx(holm(np.array([c.alpha.p for c in found])).tolist())
    assert all(c.p_holm >= c.alpha.p for c in found)


def test_crossover_of_two_power_laws_is_where_they_are_equal():
    a, b = law("a", -0.2, 4.0), law("b", -0.1, 0.4)
    found = compare_two(a, b)
    assert found.crossover == pytest.approx(10.0 ** (np.log10(0.1) / -0.1))
    assert a.error(np.array([found.crossover])) == pytest.approx(b.error(np.array([found.crossover])))
    assert found.crossover_low == found.crossover_high == pytest.approx(found.crossover)


def test_crossover_interval_are_quantiles_over_draws():
    level = np.linspace(-0.02, 0.02, 401)
    draws = np.stack([np.full(401, -0.2), 4.0 * 10**level], axis=1)
    a, b = law("a", -0.2, 4.0, draws=draws), law("b", -0.1, 0.4, draws=np.tile([-0.1, 0.4], (401, 1)))
    found = compare_two(a, b)
    assert np.log10(found.crossover_low) == pytest.approx(10 - 0.19, abs=1e-9)
    assert np.log10(found.crossover_high) == pytest.approx(10 + 0.19, abs=1e-9)


def test_crossover_is_undetermined_when_its_interval_leaves_the_data_by_more_than_a_decade():
    slopes = np.linspace(-0.21, -0.19, 401)
    middle = 1e10
    draws = np.stack([slopes, 0.04 * middle**-slopes * 2 ** np.linspace(-3, 3, 401)], axis=1)
    a = law("a", -0.2, 0.04 * middle**0.2, draws=draws)
    b = law("b", -0.1, 0.04 * middle**0.1, draws=np.tile([-0.1, 0.04 * middle**0.1], (401, 1)))
    found = compare_two(a, b)
    assert np.isnan(found.crossover)
    assert "leaves the data by more than a decade" in found.note
    assert found.crossover_low < 1e8


def test_no_crossover_without_a_scaling_law():
    found = compare_two(law("a", -0.2, 4.0, verdict=NO_SCALING), law("b", -0.1, 0.4))
    assert np.isnan(found.crossover)
    assert np.isnan(found.multiplier)
    assert found.note == "no crossover: a has no scaling law here"


def test_laws_of_another_form_cross_where_their_curves_do():
    floor = LAWS["power_floor"]
    x = np.geomspace(1e8, 1e12, 12)
    params = {"a": (-0.3, 40.0, 0.05), "b": (-0.1, 1.0, 0.01)}
    fits = []
    for source, (alpha, beta, e_inf) in params.items():
        p = np.array([alpha, beta, e_inf])
        estimate = Estimate(floor.name, p, floor.names, 12, 0.0, 1.0, 0.0, 0.0)
        data = checkpoints(source, x, beta * x**alpha + e_inf)
        known = Uncertainty({}, np.tile(p, (50, 1)), "given", alpha_se=0.01, alpha_df=9.0)
        fits.append(Fit(data, Problem(floor, x, data.error), estimate, known, SCALING))
    found = compare_two(*fits)
    at = np.array([found.crossover])
    assert fits[0].error(at) == pytest.approx(fits[1].error(at), rel=1e-4)


def test_compute_multiplier_at_an_error_both_reach():
    """E_a = 2 C**-0.1 and E_b = 2 (C / 3)**-0.1: b needs three times the compute for any error."""
    found = compare_two(law("a", -0.1, 2.0), law("b", -0.1, 2.0 * 3**0.1))
    assert found.multiplier == pytest.approx(3)
    assert (found.multiplier_low, found.multiplier_high) == pytest.approx((3, 3))
    assert found.at_error == pytest.approx(2 * np.sqrt(1e9 * 1e12) ** -0.1 * 3**0.05)


def test_no_multiplier_where_the_sources_share_no_level_of_error():
    """Two laws that would meet: the worst of a is better than the best of b."""
    found = compare_two(law("a", -0.1, 2.0), law("b", -0.2, 900.0, x=(1e9, 1e10)))
    assert np.isnan([found.at_error, found.multiplier, found.multiplier_low]).all()
    assert "the sources share no level of error" in found.note


def test_a_multiplier_whose_interval_leaves_the_data_is_undetermined():
    """The level of b is known within a factor: at an exponent of -0.1 that is its tenth power of compute."""
    for factor, known in ((1.05, True), (3.0, False)):
        levels = 2.0 * factor ** np.linspace(-1, 1, 401)
        b = law("b", -0.1, 2.0, draws=np.stack([np.full(401, -0.1), levels], axis=1))
        found = compare_two(law("a", -0.1, 2.0), b)
        assert found.at_error == pytest.approx(2 * (1e9 * 1e12) ** -0.05)
        if known:
            assert np.log([found.multiplier_low, found.multiplier_high]) == pytest.approx(
                np.array([-9.5, 9.5]) * np.log(1.05), abs=1e-9
            )
        else:
            assert np.isnan([found.multiplier, found.multiplier_low, found.multiplier_high]).all()
            assert "its interval leaves the data by a decade" in found.note


@pytest.mark.parametrize("excess", ["one-sided", "normal"])
def test_identical_sources_need_the_same_compute(excess, monkeypatch):
    """95 % intervals of the multiplier of two sources on one line, of 29 models and of 8: 1 is outside in at most 7 %,
    as both are fitted to the frontier that 8 have, none."""
    monkeypatch.setattr(resample, "DRAWS_OF_FEW", 5000)
    rng, recipe, outside = np.random.default_rng(4), Recipe("power", ("gmacs_total",), None, 200, 0, None), []
    for _ in range(300):
        fits = []
        for source, n in (("a", 29), ("b", 8)):
            x = COMPUTE if n == 29 else np.sort(rng.choice(COMPUTE, n, replace=False))
            noise = rng.exponential(0.05, n) if excess == "one-sided" else rng.normal(0, 0.02, n)
            points = checkpoints(source, x, 5.9 * x**-0.1114 * 10**noise)
            fits.append(fit_problem(points, recipe.problem(points)))
        (pair,) = compare(fits)
        assert pair.frontier == "none"
        outside.append(pair.multiplier_low > 1 or pair.multiplier_high < 1)
    assert np.mean(outside) <= 0.07


def test_a_count_of_zero_is_like_no_other():
    """Neither a warning nor a pair of a checkpoint that has seen nothing, or of data sets without a size."""
    x, error = np.geomspace(1e9, 1e12, 4), np.full(4, 0.5)
    counts = {"arch": ["A"] * 4, "samples_seen": [0.0, 1e9, 2e9, 4e9], "unique_samples": [0.0, 1e8, 0.0, 1e8]}
    found = matched(checkpoints("a", x, error, **counts), checkpoints("b", x, error / 2, **counts))
    assert found.n == 3
    assert found.ratio == pytest.approx(2)


def test_a_comparison_as_fitted_keeps_the_frontiers():
    x = np.geomspace(1e9, 1e12, 12)
    recipe = Recipe("power", ("gmacs_total",), None, 200, 0, None)
    rng = np.random.default_rng(0)
    fits = [
        fit_one(checkpoints(s, x[:n], 3 * x[:n] ** -0.1 * np.exp(rng.exponential(0.05, n))), recipe)
        for s, n in (("a", 12), ("b", 9))
    ]
    alike, as_fitted = compare(fits)[0], compare(fits, as_fitted=True)[0]
    mean = fit(LAWS["power"], x, fits[0].points.error)["alpha"]
    best = fit(LAWS["power"], x, fits[0].points.error, frontier="quantile")["alpha"]
    other = fit(LAWS["power"], x[:9], fits[1].points.error)["alpha"]
    assert (alike.frontier, as_fitted.frontier) == ("none", "")
    assert (alike.alpha.delta, as_fitted.alpha.delta) == (pytest.approx(mean - other), pytest.approx(best - other))


def test_no_multiplier_where_the_sources_share_no_compute():
    found = compare_two(law("a", -0.1, 2.0, x=(1e6, 1e7)), law("b", -0.1, 3.0, x=(1e9, 1e10)))
    assert np.isnan(found.multiplier)


def design(source, scale, alpha, archs, samples, **more):
    gmacs = {"S": 2.0, "M": 7.0, "L": 90.0}
    x = [gmacs[arch.removesuffix("-quickgelu")] * s for arch, s in zip(archs, samples, strict=True)]
    error = scale * np.array(x) ** alpha
    return checkpoints(source, x, error, arch=archs, samples_seen=samples, **more)


def test_matched_pairs_share_architecture_and_samples_seen():
    a = design("a", 2.0, -0.15, ["S-quickgelu", "M-quickgelu", "L-quickgelu"], [1e9] * 3)
    b = design("b", 3.0, -0.10, ["S", "M", "L", "L", "M"], [1e9, 1e9, 1e9, 3e10, 3e10])
    found = matched(a, b)
    x = np.array([2.0, 7.0, 90.0]) * 1e9
    assert found.n == 3
    assert found.delta == pytest.approx(-0.05)
    assert found.p < 1e-6
    assert found.ratio == pytest.approx(np.exp(np.mean(np.log(2 / 3) - 0.05 * np.log(x))))


def test_matched_prefers_the_same_number_of_unique_samples_then_the_lower_error():
    a = design("a", 2.0, -0.15, ["S", "M", "L"], [1e9] * 3, unique_samples=[4e8] * 3)
    b = design("b", 3.0, -0.10, ["S", "S", "M", "L"], [1e9] * 4, unique_samples=[2e9, 5e8, 5e8, 5e8])
    b.error[0] = 0.001
    assert matched(a, b).delta == pytest.approx(-0.05)
    unknown = design("a", 2.0, -0.15, ["S", "M", "L"], [1e9] * 3)
    assert matched(unknown, b).delta != pytest.approx(-0.05)


def test_matched_statistics_by_scipy():
    rng = np.random.default_rng(3)
    a = design("a", 2.0, -0.15, ["S", "M", "L"] * 2, [1e9] * 3 + [1e10] * 3)
    b = design("b", 2.5, -0.12, ["S", "M", "L"] * 2, [1.05e9] * 3 + [0.95e10] * 3)
    a.error[:] *= np.exp(rng.normal(0, 0.05, 6))
    x = (np.log(a.x) + np.log(b.x)) / 2
    gap = np.log(a.error) - np.log(b.error)
    line, mean = stats.linregress(x, gap), stats.ttest_1samp(gap, 0).confidence_interval()
    found = matched(a, b)
    assert (found.n, found.delta, found.p) == (6, pytest.approx(line.slope), pytest.approx(line.pvalue))
    half = line.stderr * stats.t.ppf(0.975, 4)
    assert (found.delta_low, found.delta_high) == pytest.approx((line.slope - half, line.slope + half))
    assert (found.ratio_low, found.ratio_high) == pytest.approx((np.exp(mean.low), np.exp(mean.high)))


def test_nothing_is_matched_without_a_design():
    a = checkpoints("a", [1e9, 1e10], [0.5, 0.4])
    assert matched(a, a).n == 0
    far = design("a", 2.0, -0.1, ["S", "M"], [1e9, 1e9]), design("b", 2.0, -0.1, ["S", "M"], [2e9, 2e9])
    assert matched(*far).n == 0
    unnamed = checkpoints("a", [1e9, 2e9], [0.5, 0.4], arch=[None, None], samples_seen=[1e9, 1e9])
    assert matched(unnamed, unnamed).n == 0


def test_a_source_without_scatter_is_compared():
    """All of it at chance: its exponent, 0, has no error, and is the common one. By Welch's test the answer is the
    same."""
    generator = np.random.default_rng(0)
    x = np.exp(generator.uniform(18, 26, 40))
    recipe = Recipe("power", ("gmacs_total",), "quantile", 200, 0, None, "least-squares")
    flat = fit_one(checkpoints("flat", x, np.full(40, 0.9)), recipe)
    falls = fit_one(checkpoints("falls", x, 3 * x**-0.1 * np.exp(generator.normal(0, 0.1, 40))), recipe)
    for a, b, sign in ((flat, falls, 1), (falls, flat, -1)):
        found = difference(a, b)
        assert (found.test, np.sign(found.delta)) == (PERMUTATION, sign)
        assert found.low < found.delta < found.high
        assert found.low * found.high > 0
        assert max(found.p, found.p_welch) < 0.01

"""Cluster-robust intervals: a second implementation by plain loops, closed forms, and how often they hold the truth."""

from __future__ import annotations

import numpy as np
import pytest
from imagenet_cherti2023 import COMPUTE, ERROR
from scipy import linalg, stats

from clipeval.errors import MeasureError
from clipeval.scaling.laws import LAWS
from clipeval.scaling.problem import Problem
from clipeval.scaling.uncertainty.clusters import (
    ClusterRobust,
    Side,
    clustered,
    clustered_band,
    exponents_differ,
    intraclass_correlation,
    widest,
    worth_clustering,
)

DECADE = np.log(10)


def design(log_x):
    return np.stack([log_x, np.ones_like(log_x)], axis=1)


def residuals(x, y):
    return y - x @ np.linalg.solve(x.T @ x, x.T @ y)


def by_the_book(x, residual, groups, contrast):
    """CR2 and Satterthwaite as Pustejovsky and Tipton write them, with whole matrices and loops."""
    n = len(x)
    bread = np.linalg.inv(x.T @ x)
    rest = np.eye(n) - x @ bread @ x.T
    meat, vectors = np.zeros((x.shape[1], x.shape[1])), []
    for group in sorted(set(groups)):
        rows = [i for i in range(n) if groups[i] == group]
        adjust = linalg.sqrtm(np.linalg.pinv(rest[np.ix_(rows, rows)], rcond=1e-9, hermitian=True)).real
        score = x[rows].T @ adjust @ residual[rows]
        meat += np.outer(score, score)
        vectors.append(rest[:, rows] @ adjust @ x[rows] @ bread @ contrast)
    products = np.array([[a @ b for b in vectors] for a in vectors])
    df = np.trace(products) ** 2 / np.trace(products @ products)
    return np.sqrt(contrast @ bread @ meat @ bread @ contrast), df


@pytest.mark.parametrize("sizes", [(2, 3, 4), (1, 1, 7, 2), (5, 5, 5, 5, 5)])
def test_as_written_in_the_papers(sizes):
    rng = np.random.default_rng(len(sizes))
    groups = np.repeat(np.arange(len(sizes)), sizes)
    x = np.column_stack([rng.normal(size=len(groups)), rng.normal(size=len(groups)), np.ones(len(groups))])
    residual = residuals(x, rng.normal(size=len(groups)))
    contrasts = np.array([[1.0, 0, 0], [0, 1, 0], [1, -1, 3]])
    found = ClusterRobust(x, groups, contrasts)
    expected = [by_the_book(x, residual, groups.tolist(), contrast) for contrast in contrasts]
    np.testing.assert_allclose(found.se(residual), [se for se, _ in expected], rtol=1e-8)
    np.testing.assert_allclose(found.df, [df for _, df in expected], rtol=1e-8)
    np.testing.assert_allclose(np.sqrt(np.diag(found.covariance(residual))), found.se(residual))


def test_a_mean_of_equal_groups_is_a_t_test_of_their_means():
    """Of balanced groups and a constant, CR2 is the variance of the group means, with G - 1 degrees of freedom."""
    values = np.random.default_rng(3).normal(size=(5, 4))
    found = ClusterRobust(np.ones((20, 1)), np.repeat(np.arange(5), 4))
    assert found.df == pytest.approx([4])
    assert found.se((values - values.mean()).ravel()) == pytest.approx([stats.sem(values.mean(1))])


def test_groups_of_one_point_are_hc2():
    rng = np.random.default_rng(5)
    x = design(rng.normal(size=12))
    residual = residuals(x, rng.normal(size=12))
    bread = np.linalg.inv(x.T @ x)
    leverage = np.einsum("ij,jk,ik->i", x, bread, x)
    hc2 = bread @ (x.T * (residual**2 / (1 - leverage))) @ x @ bread
    np.testing.assert_allclose(ClusterRobust(x, range(12)).covariance(residual), hc2)


def test_many_residuals_at_once():
    rng = np.random.default_rng(0)
    robust = ClusterRobust(design(rng.normal(size=9)), [0, 0, 1, 1, 1, 2, 2, 3, 3])
    residual = rng.normal(size=(4, 9))
    np.testing.assert_allclose(robust.se(residual), [robust.se(one) for one in residual])


def test_two_groups_are_refused():
    with pytest.raises(MeasureError, match=r"2 group\(s\) \(a, b\).*at least 3"):
        ClusterRobust(np.ones((4, 1)), ["a", "a", "b", "b"])
    with pytest.raises(MeasureError, match="3 group labels for 4 points"):
        ClusterRobust(np.ones((4, 1)), ["a", "b", "c"])
    with pytest.raises(MeasureError, match="do not determine"):
        ClusterRobust(np.ones((4, 2)), list("abcd"))


# --- laws


def test_the_interval_of_a_power_law():
    groups = np.arange(29) % 7
    problem = Problem(LAWS["power"], COMPUTE, ERROR)
    estimate, found = problem.estimate, clustered(problem, groups)
    x = design(np.log(COMPUTE))
    se, df = by_the_book(x, residuals(x, np.log(ERROR)), groups.tolist(), np.array([1.0, 0.0]))
    half = stats.t.ppf(0.975, df) * se
    alpha = found.intervals["alpha"]
    assert (alpha.low, alpha.high) == pytest.approx((estimate["alpha"] - half, estimate["alpha"] + half))
    assert (found.alpha_se, found.alpha_df, found.groups) == pytest.approx((se, df, 7))
    assert alpha.method == f"CR2 by 7 groups, {df:.1f} df"
    at = np.array([1e11, 1e14])
    low, high = clustered_band(problem, groups, at)
    for value, a, b in zip(at, low, high, strict=True):
        se, df = by_the_book(x, residuals(x, np.log(ERROR)), groups.tolist(), np.array([np.log(value), 1.0]))
        centre = np.log(LAWS["power"].error(np.array([value]), estimate.params))[0]
        assert np.log([a, b]) == pytest.approx(centre + stats.t.ppf(0.975, df) * se * np.array([-1, 1]))


def test_the_wider_of_two_groupings():
    problem = Problem(LAWS["power"], COMPUTE, ERROR)
    both = [clustered(problem, np.arange(29) % 7), clustered(problem, np.arange(29) // 6)]
    width = [one.intervals["alpha"].high - one.intervals["alpha"].low for one in both]
    assert widest(both)["alpha"] == both[int(np.argmax(width))].intervals["alpha"]
    assert widest(both[::-1]) == widest(both)


def test_a_curve_is_linear_near_its_estimate():
    """A parameter at its bound has no interval, and the others are those of the law without it."""
    x, rng = np.geomspace(1e9, 1e12, 21), np.random.default_rng(1)
    error = 4 * x**-0.1 * np.exp(rng.normal(0, 0.02, 21))
    groups = np.repeat(np.arange(7), 3)
    flat, plain = Problem(LAWS["power_floor"], x, error), Problem(LAWS["power"], x, error)
    assert flat.estimate["e_inf"] == 0  # of this seed
    found, expected = clustered(flat, groups), clustered(plain, groups)
    assert found.alpha_se == pytest.approx(expected.alpha_se, rel=1e-6)
    assert np.isnan(found.intervals["e_inf"].low)
    assert "bound" in found.intervals["e_inf"].reason


def test_equal_exponents_of_separate_groups_are_welch():
    rng = np.random.default_rng(2)
    sides = []
    for name, slope, noise in (("a", -0.1, 0.05), ("b", -0.2, 0.02)):
        x = np.geomspace(1e9, 1e12, 12)
        error = 4 * x**slope * np.exp(rng.normal(0, noise, 12))
        groups = [f"{name}{i // 3}" for i in range(12)]
        sides.append(Side(Problem(LAWS["power"], x, error), groups))
    found = exponents_differ(*sides)
    alone = [clustered(side.problem, side.groups) for side in sides]
    assert found.se == pytest.approx(np.hypot(*(one.alpha_se for one in alone)))
    assert found.difference == sides[0].problem.estimate["alpha"] - sides[1].problem.estimate["alpha"]
    assert min(one.alpha_df for one in alone) < found.df < sum(one.alpha_df for one in alone)
    assert found.p == pytest.approx(2 * stats.t.sf(abs(found.difference) / found.se, found.df))
    half = stats.t.ppf(0.975, found.df) * found.se
    assert (found.low, found.high) == pytest.approx((found.difference - half, found.difference + half))


def test_errors_that_both_sources_share_cancel():
    """The same runs measured on two data sets: what moves both says nothing of the difference."""
    rng = np.random.default_rng(4)
    x, groups = np.geomspace(1e9, 1e12, 12), np.repeat(list("abcd"), 3)
    shared, own = rng.normal(0, 0.05, 12), rng.normal(0, 0.001, (2, 12))
    errors = [4 * x**-0.1 * np.exp(shared + noise) for noise in own]
    law = LAWS["power"]
    same = [Side(Problem(law, x, error), groups) for error in errors]
    apart = [Side(Problem(law, x, error), [f"{i}{g}" for g in groups]) for i, error in enumerate(errors)]
    assert exponents_differ(*same).se < 0.1 * exponents_differ(*apart).se


# --- the residual correlation


def test_correlation_of_balanced_groups_is_the_analysis_of_variance():
    rng = np.random.default_rng(6)
    values = rng.normal(size=(6, 5)) + 2 * rng.normal(size=(6, 1))
    between, within = 5 * values.mean(1).var(ddof=1), values.var(axis=1, ddof=1).mean()
    found = intraclass_correlation(np.ones((30, 1)), values.ravel(), np.repeat(np.arange(6), 5))
    assert found.icc == pytest.approx((between - within) / (between + 4 * within))
    assert found.p == pytest.approx(stats.f_oneway(*values).pvalue)
    assert found.matters


def test_correlation_without_groups_is_tested_at_its_level():
    rng = np.random.default_rng(8)
    groups = np.arange(29) % 5
    p = [intraclass_correlation(design(np.log(COMPUTE)), rng.normal(size=29), groups).p for _ in range(2000)]
    assert stats.kstest(p, "uniform").pvalue > 0.01


def test_which_grouping_is_worth_it():
    """Levels of sources and smaller ones of recipes show, architectures do not."""
    rng = np.random.default_rng(9)
    x = np.geomspace(1e9, 1e13, 60)
    columns = {"arch": np.arange(60) % 4, "recipe": np.arange(60) // 3 % 5, "source": np.arange(60) % 3}
    levels = 0.06 * rng.normal(size=5)[columns["recipe"]] + np.array([0.2, -0.1, 0])[columns["source"]]
    error = 4 * x**-0.1 * np.exp(levels + rng.normal(0, 0.02, 60))
    found = worth_clustering(Problem(LAWS["power"], x, error), columns)
    assert next(iter(found)) == "source"
    assert "arch" not in found
    same = intraclass_correlation(design(np.log(x)), np.log(error), columns["source"])
    assert (found["source"].icc, found["source"].p) == pytest.approx((same.icc, same.p))


def test_no_correlation_to_see():
    for groups in (["a"] * 5, list("abcde")):
        assert np.isnan(intraclass_correlation(np.ones((5, 1)), np.arange(5.0), groups).p)


# --- coverage: seven designs, of which ordinary intervals hold the truth in 40 to 98 %


def levels(share):
    """Errors of which this share of the variance is a level of the group."""

    def of(rng, draws, groups):
        own = rng.standard_normal((draws, len(groups)))
        common = rng.standard_normal((draws, groups.max() + 1))[:, groups]
        return np.sqrt(share) * common + np.sqrt(1 - share) * own

    return of


def runs(correlation):
    """Errors of consecutive checkpoints of a run, autocorrelated."""

    def of(rng, draws, groups):
        noise = rng.standard_normal((draws, len(groups)))
        for i in range(1, len(groups)):
            if groups[i] == groups[i - 1]:
                noise[:, i] = correlation * noise[:, i - 1] + np.sqrt(1 - correlation**2) * noise[:, i]
        return noise

    return of


def grid(sizes, samples):
    return np.add.outer(np.log(sizes), np.log(samples)).ravel()


ARCHS = np.searchsorted([3e10, 1.2e11, 3e11, 1.2e12], COMPUTE)
THIRDS = np.arange(29) % 3
DESIGNS = {
    "independent": (np.log(COMPUTE), THIRDS, levels(0.0)),
    "3 architectures x 3": (grid([4.4, 17.5, 77.8], [3e9, 13e9, 34e9]), np.repeat(np.arange(3), 3), levels(0.75)),
    "5 architectures x 5": (
        grid([7.4, 20.6, 81, 167, 290], [1e9, 3e9, 8e9, 16e9, 34e9]),
        np.repeat(np.arange(5), 5),
        levels(0.75),
    ),
    "29 models by architecture": (np.log(COMPUTE), ARCHS, levels(0.75)),
    "29 models by source": (np.log(COMPUTE), THIRDS, levels(0.75)),
    "3 runs x 10": (grid([4.4, 17.5, 77.8], np.geomspace(0.1, 1, 10)), np.repeat(np.arange(3), 10), runs(0.95)),
    "12 runs x 5": (grid(np.geomspace(4, 300, 12), np.geomspace(0.2, 1, 5)), np.repeat(np.arange(12), 5), runs(0.9)),
}


@pytest.mark.parametrize("name", DESIGNS)
def test_coverage(name):
    log_x, groups, noise = DESIGNS[name]
    x = design(log_x)
    errors = 0.02 * DECADE * noise(np.random.default_rng(0), 4000, groups)
    slopes = errors @ np.linalg.pinv(x).T
    robust = ClusterRobust(x, groups)
    half = stats.t.ppf(0.975, robust.df) * robust.se(errors - slopes @ x.T)
    assert 0.92 <= np.mean(np.abs(slopes[:, 0]) <= half[:, 0]) <= 0.98


def test_coverage_of_a_curve():
    """A floor seen in three decades: the linearised interval of its exponent."""
    law, truth = LAWS["power_floor"], np.array([-0.4, 1e4, 0.2])
    x, groups, rng = np.geomspace(1e9, 1e13, 32), np.repeat(np.arange(8), 4), np.random.default_rng(1)
    inside = []
    for _ in range(150):
        error = law.error(x, truth) * np.exp(0.01 * levels(0.5)(rng, 1, groups)[0])
        alpha = clustered(Problem(law, x, error), groups).intervals["alpha"]
        inside.append(alpha.low <= truth[0] <= alpha.high)
    assert 0.9 <= np.mean(inside) <= 0.99

"""Random levels of groups: closed forms for balanced ones, the likelihood written otherwise, and coverage."""

from __future__ import annotations

import numpy as np
import pytest
from imagenet_cherti2023 import COMPUTE
from scipy import linalg, stats
from scipy.optimize import minimize

from clipeval.errors import MeasureError
from clipeval.scaling.uncertainty.random_intercept import random_intercept


def test_balanced_groups_are_the_analysis_of_variance():
    values = np.random.default_rng(0).normal(size=(6, 5)) + 2 * np.random.default_rng(1).normal(size=(6, 1))
    between, within = 5 * values.mean(1).var(ddof=1), values.var(axis=1, ddof=1).mean()
    found = random_intercept(np.ones((30, 1)), values.ravel(), np.repeat(list("abcdef"), 5))
    of_level = (between - within) / 5
    assert found.icc == pytest.approx(of_level / (of_level + within), rel=1e-5)
    assert found.estimate == pytest.approx([values.mean()])
    assert found.se == pytest.approx([np.sqrt(between / 30)], rel=1e-5)
    assert found.df == pytest.approx([5], rel=1e-4)
    # each level is the mean of its group, shrunken towards the common one
    shrunken = of_level / (of_level + within / 5) * (values.mean(1) - values.mean())
    assert [found.levels[name].value for name in "abcdef"] == pytest.approx(shrunken.tolist(), rel=1e-4)
    low, high = found.interval()
    half = stats.t.ppf(0.975, 5) * np.sqrt(between / 30)
    assert (low[0], high[0]) == pytest.approx((values.mean() - half, values.mean() + half), rel=1e-4)


def unbalanced(seed):
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(5), (2, 3, 7, 4, 5))
    design = np.stack([np.log(COMPUTE[:21]) - 26, np.ones(21)], axis=1)
    target = design @ [-0.1, 0.3] + 0.1 * rng.normal(size=5)[groups] + 0.04 * rng.normal(size=21)
    return design, target, groups


def contrasts_of_error(design, target):
    """Combinations of the points that hold nothing of the coefficients: ``[n - k]`` and what makes them."""
    basis = linalg.null_space(design.T)
    return basis.T @ target, basis


def deviance(variances, design, target, groups):
    """Of those, which are normal without a mean: restricted likelihood by its definition."""
    values, basis = contrasts_of_error(design, target)
    covariance = variances[0] * np.eye(len(target)) + variances[1] * (groups[:, None] == groups)
    return -2 * stats.multivariate_normal.logpdf(values, cov=basis.T @ covariance @ basis)


def test_the_likelihood_by_its_definition():
    design, target, groups = unbalanced(0)
    found = random_intercept(design, target, groups)
    best = minimize(
        lambda log_v: deviance(np.exp(log_v), design, target, groups), np.log([0.01, 0.01]), method="Nelder-Mead",
        options={"xatol": 1e-9, "fatol": 1e-11, "maxiter": 4000},
    )  # fmt: skip
    of_point, of_level = np.exp(best.x)
    assert found.icc == pytest.approx(of_level / (of_level + of_point), rel=1e-4)
    covariance = of_point * np.eye(21) + of_level * (groups[:, None] == groups)
    weight = np.linalg.inv(covariance)
    bread = np.linalg.inv(design.T @ weight @ design)
    assert found.estimate == pytest.approx(bread @ design.T @ weight @ target, rel=1e-4)
    assert found.se == pytest.approx(np.sqrt(np.diag(bread)), rel=1e-4)

    def variance(variances):
        weight = np.linalg.inv(variances[0] * np.eye(21) + variances[1] * (groups[:, None] == groups))
        return np.linalg.inv(design.T @ weight @ design)[0, 0]

    # degrees of freedom with the slopes of the variance by differences, and the information by simulation
    point = np.array([of_point, of_level])
    step = 1e-5 * point
    slope = np.array([(variance(point + s) - variance(point - s)) / (2 * s.sum()) for s in np.diag(step)])
    basis = contrasts_of_error(design, target)[1]
    scores = []
    rng = np.random.default_rng(3)
    inverse = np.linalg.inv(basis.T @ covariance @ basis)
    parts = [basis.T @ part @ basis for part in (np.eye(21), (groups[:, None] == groups).astype(float))]
    draws = rng.multivariate_normal(np.zeros(19), basis.T @ covariance @ basis, 40_000)
    for part in parts:
        middle = inverse @ part @ inverse
        scores.append((np.einsum("di,ij,dj->d", draws, middle, draws) - np.trace(inverse @ part)) / 2)
    information = np.cov(scores)
    assert found.df[0] == pytest.approx(
        2 * variance(point) ** 2 / (slope @ np.linalg.solve(information, slope)), rel=0.05
    )


def test_no_levels_are_least_squares():
    design, target, groups = unbalanced(0)
    residual = target - design @ np.linalg.lstsq(design, target, rcond=None)[0]
    # residuals that are equal in the mean of every group: less than chance would have
    for _ in range(500):
        for group in range(5):
            residual[groups == group] -= residual[groups == group].mean()
        residual -= design @ np.linalg.lstsq(design, residual, rcond=None)[0]
    found = random_intercept(design, design @ [-0.1, 0.3] + residual, groups)
    line = stats.linregress(design[:, 0], design @ [-0.1, 0.3] + residual)
    assert found.icc == 0
    assert (found.estimate[0], found.se[0], found.df[0]) == pytest.approx((line.slope, line.stderr, 19))
    assert {level.value for level in found.levels.values()} == {0.0}


def test_levels_are_predicted():
    """Of a known group the level is known to about its standard deviation: 95 % within 1.96 of them."""
    inside = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        groups = np.repeat(np.arange(8), 6)
        x = rng.normal(size=48)
        level = 0.1 * rng.normal(size=8)
        target = -0.1 * x + level[groups] + 0.05 * rng.normal(size=48)
        found = random_intercept(np.stack([x, np.ones(48)], axis=1), target, groups)
        # levels and the common one are only known together
        inside += [abs(found.levels[str(g)].value - level[g]) <= 1.96 * found.levels[str(g)].sd for g in range(8)]
    assert 0.9 <= np.mean(inside) <= 0.99


@pytest.mark.parametrize("count", [3, 5])
def test_coverage_and_width(count):
    """29 models in groups that differ in level: the slope is held, by a much shorter interval than CR2."""
    from clipeval.scaling.uncertainty.clusters import ClusterRobust

    rng = np.random.default_rng(count)
    groups = np.searchsorted(np.quantile(COMPUTE, np.arange(1, count) / count), COMPUTE)
    design = np.stack([np.log(COMPUTE) - 26, np.ones(29)], axis=1)
    robust = ClusterRobust(design, groups, np.array([[1.0, 0.0]]))
    inside, shorter = [], []
    for _ in range(150):
        noise = 0.046 * (np.sqrt(0.75) * rng.normal(size=count)[groups] + np.sqrt(0.25) * rng.normal(size=29))
        low, high = random_intercept(design, noise, groups, np.array([[1.0, 0.0]])).interval()
        inside.append(low[0] <= 0 <= high[0])
        residual = noise - design @ np.linalg.lstsq(design, noise, rcond=None)[0]
        shorter.append((high[0] - low[0]) / (2 * stats.t.ppf(0.975, robust.df[0]) * robust.se(residual)[0]))
    assert 0.88 <= np.mean(inside) <= 0.99
    assert np.median(shorter) < 0.7


def test_what_cannot_be_told():
    with pytest.raises(MeasureError, match="at least 3"):
        random_intercept(np.ones((4, 1)), np.arange(4.0), ["a", "a", "b", "b"])
    with pytest.raises(MeasureError, match="4 points in 4 groups"):
        random_intercept(np.ones((4, 1)), np.arange(4.0), list("abcd"))

"""Frontiers against hand-worked sets, linear programming, a second implementation, and simulated data."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from imagenet_cherti2023 import COMPUTE, ERROR
from scipy.optimize import linprog

from clipeval.scaling.frontier import DEFAULT_FRONTIER, FRONTIERS, frontier_for, on_frontier
from clipeval.scaling.laws import LAWS
from clipeval.scaling.problem import Problem
from clipeval.scaling.quantile import quantile_line

BEST_OF_FIVE_BINS = [0.37316, 0.36772, 0.29778, 0.26904, 0.22028]
"""reference: the minima behind the published line, B/16 400M 3B to H/14 2B 34B"""


def chosen(name, x, error):
    points = FRONTIERS[name].points(np.log(np.array([x])), np.log(np.array([error])))
    return sorted(points.model[points.weight > 0].tolist())


def test_pareto_keeps_what_nothing_beats():
    x = [1.0, 1.0, 2.0, 3.0, 4.0, 4.0, 9.0]
    error = [0.5, 0.4, 0.45, 0.3, 0.3, 0.29, 0.29]
    # 0.5 loses to 0.4 at the same scale, 0.45 to less compute, 0.3 at 4 and 0.29 at 9 only equal an earlier one
    assert chosen("pareto", x, error) == [1, 3, 5]


def test_hull_keeps_the_corners_down_to_the_best():
    x = np.exp([0.0, 1.0, 2.0, 3.0, 4.0, 5.0])
    error = np.exp([0.0, -1.0, -1.5, -3.0, -3.2, -3.1])
    # (2, -1.5) lies above the line from (1, -1) to (3, -3); (1, -1) lies on the line from (0, 0) to (3, -3)
    assert chosen("hull", x, error) == [0, 3, 4]


def test_frontiers_do_not_depend_on_the_order_of_models():
    order = np.random.default_rng(1).permutation(len(COMPUTE))
    for name in ("cherti2023", "pareto", "hull"):
        best = on_frontier(name, COMPUTE, ERROR)
        assert sorted(ERROR[order][on_frontier(name, COMPUTE[order], ERROR[order])]) == sorted(ERROR[best])


def test_paper_bins_are_numpy_histogram_bins():
    log_x = np.log10(COMPUTE)
    _, edges = np.histogram(log_x, range=(log_x.min(), log_x.max() + 0.1), bins=5)
    np.testing.assert_allclose(edges, [10.257332, 10.790188, 11.323044, 11.855900, 12.388756, 12.921612], atol=1e-6)
    points = FRONTIERS["cherti2023"].points(np.log(COMPUTE)[None], np.log(ERROR)[None])
    np.testing.assert_allclose(points.log_x[0] / np.log(10), (edges[1:] + edges[:-1]) / 2, rtol=1e-12)
    minima = [ERROR[(log_x >= low) & (log_x < high)].min() for low, high in pairwise(edges)]
    np.testing.assert_allclose(np.exp(points.log_error[0]), minima, rtol=1e-12)
    np.testing.assert_allclose(minima, BEST_OF_FIVE_BINS, atol=5e-6)


def test_empty_bins_hold_no_point():
    x = np.array([1.0, 1.1, 1.2, 1.3, 1e5, 1.1e5, 1.2e5])
    error = np.array([0.5, 0.6, 0.45, 0.7, 0.2, 0.3, 0.25])
    assert chosen("cherti2023", x, error) == [2, 4]


@pytest.mark.parametrize("tau", [0.05, 0.1, 0.5, 0.8])
def test_quantile_line_solves_the_linear_programme(tau):
    rng = np.random.default_rng(4)
    for n in (11, 23, 29):
        x = np.sort(rng.normal(size=n))
        y = -0.3 * x + rng.exponential(0.2, n)
        slope, intercept = quantile_line(x[None], y[None], tau, np.zeros(1))
        residual = y - slope * x - intercept
        features = np.hstack([np.ones((n, 1)), x[:, None], np.eye(n), -np.eye(n)])
        prices = np.r_[0, 0, np.full(n, tau), np.full(n, 1 - tau)]
        oracle = linprog(prices, A_eq=features, b_eq=y, bounds=[(None, None)] * 2 + [(0, None)] * 2 * n)
        loss = np.where(residual > 0, tau * residual, (tau - 1) * residual).sum()
        assert loss == pytest.approx(oracle.fun, rel=1e-9)
        assert (slope[0], intercept[0]) == pytest.approx((oracle.x[1], oracle.x[0]), rel=1e-6)


def test_quantile_line_of_a_resample_counts_repeats():
    rng = np.random.default_rng(6)
    x, y = rng.normal(size=13), rng.normal(size=13)
    repeats = np.repeat(np.arange(13), rng.integers(0, 4, 13))
    twice = np.tile(repeats, 2)
    once, doubled = (quantile_line(x[None, index], y[None, index], 0.3, np.zeros(1)) for index in (repeats, twice))
    assert once[0] == pytest.approx(doubled[0])


def test_few_models_have_no_frontier():
    assert (
        frontier_for("quantile", 9).name == frontier_for("cherti2023", 5).name == frontier_for("hull", 3).name == "none"
    )
    assert frontier_for("quantile", 10).name == "quantile"
    assert on_frontier("pareto", np.array([1.0, 2.0, 3.0]), np.array([0.3, 0.4, 0.2])).tolist() == [0, 1, 2]


def simulated_bias(name, excess):
    errors = np.log(5.9) - 0.1114 * np.log(COMPUTE) + excess * np.log(10)
    problem = Problem(LAWS["power"], COMPUTE, ERROR, name)
    alphas = problem.refit(np.broadcast_to(problem.log_x, errors.shape), errors)[:, 0]
    return alphas.mean() + 0.1114, alphas.std()


def test_bias_of_the_frontiers_is_as_documented():
    excess = np.random.default_rng(0).exponential(0.05, (8000, len(COMPUTE)))
    found = {name: simulated_bias(name, excess) for name in FRONTIERS}
    documented = {"none": 0.000, "cherti2023": 0.0064, "pareto": -0.0052, "hull": -0.0081, "quantile": 0.000}
    for name, bias in documented.items():
        assert found[name][0] == pytest.approx(bias, abs=4e-4), name
    assert abs(found[DEFAULT_FRONTIER][0]) <= 0.002
    frontiers = [name for name in FRONTIERS if name != "none"]
    assert min(frontiers, key=lambda name: abs(found[name][0])) == DEFAULT_FRONTIER
    assert min(found, key=lambda name: found[name][1]) == DEFAULT_FRONTIER


def test_mean_of_all_models_is_not_a_frontier():
    # an excess that grows with compute, as where small data sets are repeated, tilts the mean but hardly the frontier
    position = (np.log(COMPUTE) - np.log(COMPUTE[0])) / np.log(COMPUTE[-1] / COMPUTE[0])
    excess = np.random.default_rng(1).exponential(1, (4000, len(COMPUTE))) * (0.02 + 0.03 * position)
    assert simulated_bias("none", excess)[0] > 0.01
    assert abs(simulated_bias(DEFAULT_FRONTIER, excess)[0]) <= 0.002


@pytest.mark.parametrize("tau", [0.1, 0.25])
def test_line_of_a_quantile_of_very_many_points_is_that_of_linear_programming(tau):
    """Most points are left out of the search; some lie below the line although least squares places them above it."""
    rng = np.random.default_rng(5)
    x = rng.uniform(20, 30, (6, 150))
    y = -0.1 * x + rng.exponential(0.1, x.shape)
    y[1:3] += 0.3 * np.maximum(x[1:3] - 24, 0) ** 2
    y[3:, :40] = 3 - 0.4 * x[3:, :40]
    near = np.array([np.polyfit(*points, 1)[0] for points in zip(x, y, strict=True)])
    slopes, intercepts = quantile_line(x, y, tau, near)
    for log_x, log_error, slope, intercept in zip(x, y, slopes, intercepts, strict=True):
        n = len(log_x)
        # log_error = slope x + intercept + above - below, at the least cost of what is above and below
        exact = linprog(
            np.concatenate([[0, 0], np.full(n, tau), np.full(n, 1 - tau)]),
            A_eq=np.hstack([log_x[:, None], np.ones((n, 1)), np.eye(n), -np.eye(n)]),
            b_eq=log_error,
            bounds=[(None, None)] * 2 + [(0, None)] * (2 * n),
        )
        residual = log_error - slope * log_x - intercept
        assert np.maximum(tau * residual, (tau - 1) * residual).sum() == pytest.approx(exact.fun, rel=1e-9)


def cheapest(x, y, tau):
    """The least check loss of any line through two points."""
    i, j = np.triu_indices(len(x), 1)
    i, j = i[x[i] != x[j]], j[x[i] != x[j]]
    slope = (y[i] - y[j]) / (x[i] - x[j])
    residual = y - slope[:, None] * x - (y[i] - slope * x[i])[:, None]
    return np.maximum(tau * residual, (tau - 1) * residual).sum(-1).min()


@pytest.mark.parametrize("spread", [0.0, 0.3])
@pytest.mark.parametrize("tau", [0.1, 0.25, 0.5])
def test_line_of_a_quantile_is_the_best_through_two_points_where_many_lie_in_rows(tau, spread):
    """On grids, with a floor as of chance, with models drawn again; and NaN where all are of one scale."""
    rng = np.random.default_rng(8)
    for n in (3, 4, 7, 20, 50):
        x = rng.uniform(20, 30, (40, n))
        floor = np.maximum(-0.1 * x + rng.exponential(0.1, x.shape), -2.6)
        again = rng.integers(n, size=x.shape)
        grid = rng.integers(0, 4, (2, 40, n)).astype(float)
        grid[0, 0] = 2
        for log_x, log_error in (grid, (x, floor), (x[0][again], floor[0][again])):
            near = rng.normal(-0.1, spread, 40)
            for one_x, one_error, slope, level in zip(
                log_x, log_error, *quantile_line(log_x, log_error, tau, near), strict=True
            ):
                if np.ptp(one_x) == 0:
                    assert np.isnan(slope)
                    continue
                residual = one_error - slope * one_x - level
                loss = np.maximum(tau * residual, (tau - 1) * residual).sum()
                assert loss == pytest.approx(cheapest(one_x, one_error, tau), abs=1e-9)


def test_a_line_that_is_too_low_as_a_whole_turns_about_the_far_end():
    """All of its points would have to be below, and their x say nothing of where to."""
    x, y = np.random.default_rng(2625).integers(0, 4, (2, 1, 50)).astype(float)
    slope, level = quantile_line(x, y, 0.25, np.array([-0.65]))
    residual = y - slope * x - level
    assert np.maximum(0.25 * residual, -0.75 * residual).sum() == pytest.approx(cheapest(x[0], y[0], 0.25))

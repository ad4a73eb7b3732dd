"""The exponent of the best size: planted laws, exact designs, and public isoFLOP runs."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import clipeval
from clipeval.errors import MeasureError
from clipeval.scaling.laws import LAWS
from clipeval.scaling.questions.allocation import Allocation, Exponent, allocation

JOINT = LAWS["joint_nd"]
PLANTED = np.array([0.1, 600.0, -0.35, 6e4, -0.5])
TRUTH = 0.5 / 0.85


def design():
    """IsoFLOP runs of 1 to 2,000 samples per parameter."""
    size, compute = (grid.ravel() for grid in np.meshgrid(np.geomspace(1e7, 3e9, 17), np.geomspace(1e17, 1e20, 9)))
    kept = (compute > size**2) & (compute < 2000 * size**2)
    return size[kept], compute[kept] / size[kept], compute[kept]


def planted(seed, scatter=0.01):
    size, samples, compute = design()
    noise = np.random.default_rng(seed).normal(0, scatter * np.log(10), len(size))
    return size, samples, JOINT.error(np.stack([size, samples], axis=1), PLANTED) * np.exp(noise), compute


def test_a_planted_law():
    """Of 20 tables nearly all intervals of approaches 1 and 3 hold the truth, and the third's are the shortest.

    The parabola, which is not the law's shape, is off by a little.
    """
    inside, width, estimates = [], [], []
    for seed in range(20):
        size, samples, error, compute = planted(seed)
        found = allocation(size, samples, error, budget=compute, draws=200).exponents
        inside.append([one.low <= TRUTH <= one.high for one in found])
        width.append([one.high - one.low for one in found])
        estimates.append([one.a for one in found])
    assert (np.mean(inside, axis=0)[[0, 2]] >= 0.85).all()
    best, parabola, joint = np.median(width, axis=0)
    assert joint < parabola < best
    assert joint < 0.06
    assert np.mean(estimates, axis=0) == pytest.approx([TRUTH] * 3, abs=0.03)


def test_parabolas_that_are_exact():
    """ln E = b (ln N - m)**2 + c with m on a line in ln C: its slope, exactly; and Student's interval of deviations."""
    budgets = np.array([1e18, 1e19, 1e20, 1e21])
    lift = np.array([0.02, -0.03, 0.01, 0.0])
    size, compute, error = [], [], []
    for budget, off in zip(budgets, lift, strict=True):
        middle = 0.45 * np.log(budget) + off
        sizes = middle + np.linspace(-1, 1.2, 5)
        size += np.exp(sizes).tolist()
        compute += [budget] * 5
        error += np.exp(0.1 * (sizes - middle) ** 2 - 0.05 * np.log(budget)).tolist()
    size, compute = np.array(size), np.array(compute)
    second = allocation(size, compute / size, np.array(error), budget=compute).exponents[1]
    line = stats.linregress(np.log(budgets), 0.45 * np.log(budgets) + lift)
    half = stats.t.ppf(0.975, 2) * line.stderr
    assert (second.a, second.low, second.high) == pytest.approx((line.slope, line.slope - half, line.slope + half))
    assert second.n == 4


def test_compute_that_differs_within_a_bin():
    """Without budgets, parabolas share a slope in ln C: models of a bin need not have the same compute."""
    rng = np.random.default_rng(1)
    log_size, log_compute = rng.uniform(-2, 2, 200), np.log(2.0) * np.repeat(np.arange(8), 25)
    log_compute = log_compute + rng.uniform(0, 0.95 * np.log(2.0), 200)
    log_compute[0], centre = 0.0, np.repeat(np.arange(8), 25)
    middle = np.array([0.3 * log_compute[centre == j].mean() for j in range(8)])[centre]
    size = np.exp(log_size + middle)
    error = np.exp(0.1 * log_size**2 - 0.2 * log_compute)
    second = allocation(size, np.exp(log_compute) / size, error).exponents[1]
    assert second.a == pytest.approx(0.3, abs=1e-6)


def test_the_best_model_at_an_edge_does_not_count():
    """Three sizes per budget: in the first budget the smallest is the best, so that a smaller one may be better."""
    compute = np.repeat([1e18, 1e19, 1e20, 1e21], 3)
    size = np.array([1, 2, 4, 1, 2, 4, 2, 4, 8, 4, 8, 16]) * 1e8
    error = np.array([0.50, 0.51, 0.52, 0.41, 0.40, 0.42, 0.32, 0.30, 0.31, 0.22, 0.20, 0.21])
    first, second, _ = allocation(size, compute / size, error, budget=compute).exponents
    line = stats.linregress(np.log([1e19, 1e20, 1e21]), np.log([2e8, 4e8, 8e8]))
    assert (first.a, first.n) == pytest.approx((line.slope, 3))
    assert "4 sizes" in second.reason
    assert np.isnan(second.a)


def test_groups_widen_the_joint_law():
    """Architectures that are better or worse than their size says, at every budget."""
    size, samples, error, _ = planted(0, scatter=0.001)
    labels = size.round(-3)
    sizes = np.unique(labels)
    level = dict(zip(sizes, np.random.default_rng(2).normal(0, 0.03, len(sizes)), strict=True))
    error = error * np.exp([level[label] for label in labels])
    apart = allocation(size, samples, error, draws=200).exponents[2]
    together = allocation(size, samples, error, groups=labels).exponents[2]
    assert together.a == pytest.approx(apart.a)
    assert together.high - together.low > 1.5 * (apart.high - apart.low)
    two = allocation(size, samples, error, groups=size > 1e8).exponents[2]
    assert "at least 3" in two.reason
    assert np.isnan(two.high)


def of(*ends):
    return Allocation(tuple(Exponent("", (low + high) / 2, low, high, 5) for low, high in ends))


def test_settled():
    nothing = (float("nan"),) * 2
    assert of((0.4, 0.6), (0.5, 0.7), (0.45, 0.55)).settled
    assert not of((0.4, 0.5), (0.51, 0.7), (0.3, 0.8)).settled
    assert of((0.4, 0.6), nothing, (0.5, 0.7)).settled
    assert not of((0.4, 0.6), nothing, nothing).settled
    assert of((0.4, 0.5), (0.6, 0.7)).sentence == "not settled: the approaches differ by more than their intervals"
    assert "fewer than two" in of((0.4, 0.6), nothing).sentence


def test_values_that_cannot_be():
    with pytest.raises(MeasureError, match="error: "):
        allocation(np.ones(3), np.ones(3), np.array([0.5, 0.0, 0.4]))


def test_a_fit_with_a_budget_has_the_exponents():
    """Those of ``allocation`` on the points of its joint law, for each source that has one."""
    rng = np.random.default_rng(0)
    size, samples = (part.ravel() for part in np.meshgrid(np.geomspace(1, 64, 7), np.geomspace(1e6, 6.4e7, 7)))
    error = 0.05 + 0.3 * size**-0.3 + 40 * samples**-0.35
    rows = pd.DataFrame({"gmacs": size, "samples_seen": samples, "value": 1 - error * np.exp(rng.normal(0, 0.005, 49))})
    rows = rows.assign(model=[f"m{i}" for i in range(49)], source="a", arch=[f"{s:g}" for s in size])
    rows = rows.assign(dataset="birds", task="zeroshot_classification", metric="acc1")
    few = rows.iloc[:3].assign(source="b")
    found = clipeval.fit(pd.concat([rows, few]), budget=1e8, bootstrap=100)
    growth = found.more["growth"]
    assert set(growth["source"]) == {"a"}
    expected = allocation(size, samples, 1 - rows["value"].to_numpy())
    assert growth["a"].tolist() == pytest.approx([one.a for one in expected.exponents], nan_ok=True)
    assert set(growth["conclusion"]) == {expected.sentence}
    assert growth["a"].iloc[2] == pytest.approx(0.35 / 0.65, abs=0.05)

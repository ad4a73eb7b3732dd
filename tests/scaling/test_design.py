"""The next runs: formulas against explicit inverses, and forecasts that simulated runs give."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from clipeval.errors import MeasureError, UsageError
from clipeval.scaling.laws import LAWS
from clipeval.scaling.problem import Problem
from clipeval.scaling.questions.design import _Model, exponent_sd, leave_out, next_runs, split

JOINT = LAWS["joint_nd"]
SIGMA = 0.02 * np.log(10)
LADDER = np.array([(n, ratio * n) for n in 3e7 * np.array([1, 3, 9]) for ratio in (5, 20, 80)])
COST = LADDER.prod(axis=1)
BUDGET = COST.sum()
CENTRE = np.exp(np.log(LADDER).mean(0))
PLANTED = np.array([0.1, 0.3 * CENTRE[0] ** 0.35, -0.35, 0.3 * CENTRE[1] ** 0.5, -0.5])
SIZES = 3e7 * np.geomspace(1 / 3, 45, 12)
CANDIDATES = np.array([(n, ratio * n) for n in SIZES for ratio in 1.25 * 2.0 ** np.arange(9)])


def at_ratio(cost):
    """The run of 20 samples per parameter."""
    return np.sqrt(cost / 20) * np.array([1, 20])


TARGET = at_ratio(25 * COST.sum())


def exact(x):
    """Runs that the planted law gives."""
    return Problem(JOINT, x, JOINT.error(x, PLANTED))


def planned(x=LADDER, candidates=CANDIDATES, budget=BUDGET, **options):
    return next_runs(exact(x), TARGET, candidates, candidates.prod(axis=1), budget, SIGMA, **options)


def sd(x):
    """Of ln E at the target, by the inverse of the information written out; the prior is that of the ladder."""
    model = _Model(exact(LADDER))
    aim, gradient = model.gradient(TARGET[None])[0], model.gradient(x)
    information = sum((np.outer(row, row) / SIGMA**2 for row in gradient), model.prior)
    return np.sqrt(aim @ np.linalg.solve(information, aim))


def test_standard_deviations_by_explicit_inverses():
    found = planned()
    assert found.sd_before == pytest.approx(sd(LADDER))
    assert found.sd_after == pytest.approx(sd(np.concatenate([LADDER, found.runs])))
    costly = [run for run in CANDIDATES if run.prod() <= COST.sum()]
    most = max(run.prod() for run in costly)
    single = [sd(np.concatenate([LADDER, run[None]])) for run in costly if run.prod() >= most / 2]
    assert found.sd_largest == pytest.approx(min(single))
    assert found.cost.sum() <= COST.sum()
    np.testing.assert_allclose(found.cost, found.runs.prod(axis=1))
    assert sum(found.counts.values()) == len(found.runs)
    assert max(found.counts.values()) == 3
    assert found.notes == ()


def test_each_run_is_the_best_one_for_the_root_of_its_cost():
    found = planned(repeats=1)
    x = LADDER
    left = COST.sum()
    taken = []
    for run in found.runs[:3]:
        gains = [
            np.log(sd(x) / sd(np.concatenate([x, other[None]]))) / np.sqrt(other.prod())
            if other.prod() <= left and i not in taken else -1
            for i, other in enumerate(CANDIDATES)
        ]  # fmt: skip
        best = int(np.argmax(gains))
        np.testing.assert_array_equal(run, CANDIDATES[best])
        taken.append(best)
        x, left = np.concatenate([x, run[None]]), left - run.prod()


def rmse(x, draws=60):
    """What forecasts of the target were off by, of laws refitted to simulated runs."""
    truth, off = np.log(JOINT.error(TARGET[None], PLANTED))[0], []
    for seed in range(draws):
        noise = np.random.default_rng(seed).normal(0, SIGMA, len(x))
        found = Problem(JOINT, x, JOINT.error(x, PLANTED) * np.exp(noise)).estimate
        off.append(np.log(JOINT.error(TARGET[None], found.params))[0] - truth)
    return np.sqrt(np.mean(np.square(off)))


def test_the_plan_beats_a_second_ladder_and_one_large_run():
    """For the same money: at most .8 of the error of the first and .65 of that of the second."""
    plan = rmse(np.concatenate([LADDER, planned().runs]))
    assert plan <= 0.8 * rmse(np.concatenate([LADDER, LADDER]))
    assert plan <= 0.65 * rmse(np.concatenate([LADDER, at_ratio(COST.sum())[None]]))


def test_the_promise_is_kept():
    """The standard deviation of the formula is about what simulated forecasts are off by."""
    found = planned()
    assert rmse(np.concatenate([LADDER, found.runs])) == pytest.approx(found.sd_after, rel=0.35)


def test_the_check_on_the_runs_there_are():
    """A planted law keeps what the formula promises; one with another kind of large runs does not."""
    x = np.concatenate([LADDER, LADDER * [1, 2]])
    error = JOINT.error(x, PLANTED) * np.exp(np.random.default_rng(0).normal(0, SIGMA, len(x)))
    promised, off = leave_out(Problem(JOINT, x, error), SIGMA)
    assert off < 2 * promised
    worse = np.where(x.prod(axis=1) >= np.sort(x.prod(axis=1))[-3], 1.6 * error, error)
    assert leave_out(Problem(JOINT, x, worse), SIGMA)[1] > 2 * promised


def test_two_levels_are_marked():
    two = LADDER[[0, 1, 2, 6, 7, 8]]
    found = planned(two, LADDER[:3])
    assert "only 2 levels" in found.notes[0]


def test_what_cannot_be_planned():
    with pytest.raises(UsageError, match="buys none of the runs: the cheapest costs"):
        planned(budget=1.0)
    with pytest.raises(MeasureError, match="sigma 0"):
        next_runs(exact(LADDER), TARGET, LADDER, COST, 1e30, 0.0)


# --- exponents


def test_the_exponent_by_simulation():
    x = np.geomspace(1e9, 1e12, 9)
    noise = np.random.default_rng(0).normal(0, SIGMA, (4000, 9))
    slopes = np.polyfit(np.log(x), noise.T, 1)[0]
    assert exponent_sd(x, SIGMA) == pytest.approx(slopes.std(), rel=0.04)


def test_two_ends_know_the_exponent_best():
    """Seven small and two large runs against a geometric ladder of nine for the same money."""
    ladder = np.geomspace(1, 1000, 9)
    small, large = 1.0, (ladder.sum() - 7) / 2
    assert exponent_sd([small] * 7 + [large] * 2, SIGMA) < 0.85 * exponent_sd(ladder, SIGMA)


def test_money_for_a_difference():
    """The split that a numerical search finds: variances v / money."""
    se_a, cost_a, se_b, cost_b, money = 0.01, 4.0, 0.02, 1.0, 7.0

    def variance(share):
        return se_a**2 * cost_a / (share * money) + se_b**2 * cost_b / ((1 - share) * money)

    best = minimize_scalar(variance, bounds=(0.01, 0.99), method="bounded").x
    assert split(se_a, cost_a, se_b, cost_b) == pytest.approx(best, abs=1e-4)
    assert split(0.01, 9.0, 0.02, 1.0) == pytest.approx(0.6)

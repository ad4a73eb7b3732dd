"""The next runs: formulas against explicit inverses, and forecasts that simulated runs give."""

from __future__ import annotations

import numpy as np
import pytest

from clipeval.errors import MeasureError, UsageError
from clipeval.scaling.laws import LAWS
from clipeval.scaling.problem import Problem
from clipeval.scaling.questions.design import Side, _Model, leave_out, next_runs

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
    of, side = np.zeros(len(candidates), int), Side(exact(x), SIGMA, TARGET)
    return next_runs([side], of, candidates, lambda chosen: candidates.prod(axis=1), budget, **options)


def sd(x):
    """Of ln E at the target, by the inverse of the information written out; the prior is that of the ladder."""
    model = _Model(exact(LADDER))
    aim, gradient = model.gradient(TARGET[None])[0], model.gradient(x)
    information = sum((np.outer(row, row) / SIGMA**2 for row in gradient), model.prior)
    return np.sqrt(aim @ np.linalg.solve(information, aim))


def test_standard_deviations_by_explicit_inverses():
    found = planned()
    assert found.sd_before == pytest.approx(sd(LADDER))
    assert found.sd_after == pytest.approx(sd(np.concatenate([LADDER, CANDIDATES[found.chosen]])))
    costly = [run for run in CANDIDATES if run.prod() <= COST.sum()]
    most = max(run.prod() for run in costly)
    single = [sd(np.concatenate([LADDER, run[None]])) for run in costly if run.prod() >= most / 2]
    assert found.sd_largest == pytest.approx(min(single))
    assert found.cost.sum() <= COST.sum()
    np.testing.assert_allclose(found.cost, CANDIDATES[found.chosen].prod(axis=1))
    assert max(found.chosen.count(number) for number in found.chosen) == 3
    assert found.notes == ()


def test_each_run_is_the_best_one_for_the_root_of_its_cost():
    found = planned(repeats=1)
    x = LADDER
    left = COST.sum()
    taken = []
    for run in CANDIDATES[found.chosen][:3]:
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
    plan = rmse(np.concatenate([LADDER, CANDIDATES[planned().chosen]]))
    assert plan <= 0.8 * rmse(np.concatenate([LADDER, LADDER]))
    assert plan <= 0.65 * rmse(np.concatenate([LADDER, at_ratio(COST.sum())[None]]))


def test_the_promise_is_kept():
    """The standard deviation of the formula is about what simulated forecasts are off by."""
    found = planned()
    assert rmse(np.concatenate([LADDER, CANDIDATES[found.chosen]])) == pytest.approx(found.sd_after, rel=0.35)


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
        Side(exact(LADDER), 0.0, TARGET)


# --- exponents


POWER = LAWS["power"]


def side_of(x, alpha=-0.2, sigma=SIGMA):
    x = np.asarray(x, dtype=float)
    return Side(Problem(POWER, x, 0.5 * x**alpha), sigma, None)


def exponent_plan(sides, of, candidates, budget, price=None, **options):
    candidates = np.asarray(candidates, dtype=float)
    return next_runs(sides, np.array(of), candidates, price or (lambda chosen: candidates), budget, **options)


def test_the_exponents_standard_deviation_is_that_of_a_line():
    """sigma / sqrt(sum (ln x - mean)**2), but for a prior that hardly counts; of a difference both together."""
    x, other = np.geomspace(1, 1000, 9), np.geomspace(5, 300, 4)

    def expected(x):
        return SIGMA / np.sqrt(((np.log(x) - np.log(x).mean()) ** 2).sum())

    plan = exponent_plan([side_of(x)], [0], [1.0], 1.0)
    assert plan.sd_before == pytest.approx(expected(x), rel=2e-3)
    assert plan.sd_after == pytest.approx(expected([*x, 1.0]), rel=2e-3)
    both = exponent_plan([side_of(x), side_of(other)], [1], [5.0], 5.0)
    assert both.sd_before == pytest.approx(np.hypot(expected(x), expected(other)), rel=2e-3)
    assert both.sd_after == pytest.approx(np.hypot(expected(x), expected([*other, 5.0])), rel=2e-3)


def test_the_money_goes_where_less_is_known():
    known, unknown = side_of(np.geomspace(1, 1000, 30)), side_of(np.geomspace(1, 20, 4))
    levels = np.geomspace(1, 100, 7)
    plan = exponent_plan([known, unknown], [0] * 7 + [1] * 7, [*levels, *levels], 150)
    of_unknown = sum(cost for number, cost in zip(plan.chosen, plan.cost, strict=True) if number >= 7)
    assert of_unknown > 0.9 * plan.cost.sum()


def test_a_plan_for_an_exponent_beats_a_second_ladder():
    levels = np.geomspace(1, 1000, 9)
    plan = exponent_plan([side_of(levels[3:6])], [0] * 9, levels, levels.sum(), repeats=10)
    again = exponent_plan([side_of([*levels[3:6], *levels])], [0], [1.0], 1.0)
    assert plan.sd_after < 0.65 * again.sd_before


def test_prices_may_depend_on_what_is_chosen():
    """A trunk is paid once: what goes on from it costs little."""
    levels = np.array([1.0, 10.0, 100.0])

    def price(chosen):
        trunk = max(levels[list(chosen)], default=0.0)
        return np.maximum(levels - trunk, 0) + 0.1 * levels

    plan = exponent_plan([side_of([3.0, 30.0, 50.0])], [0] * 3, levels, 150.0, price, repeats=1)
    assert sorted(plan.chosen) == [0, 1, 2]
    assert plan.cost.sum() == pytest.approx(100 + 0.1 * 111)

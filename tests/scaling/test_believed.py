"""Hold-out, leave-one-out and verdicts, against published figures and brute force."""

from __future__ import annotations

import numpy as np
import pytest
from imagenet_cherti2023 import COMPUTE, ERROR, LAION_2B, WIT_COMPUTE, WIT_ERROR
from tables import fit

from clipeval.errors import MeasureError
from clipeval.scaling.laws import LAWS, LogLinear
from clipeval.scaling.problem import Problem
from clipeval.scaling.uncertainty.interval import Interval
from clipeval.scaling.uncertainty.methods import uncertainty
from clipeval.scaling.validation import (
    NO_SCALING,
    SCALING,
    TOO_FEW,
    floor_note,
    holdout,
    joint_verdict,
    leave_one_out,
    verdict,
)

POWER = LAWS["power"]
UNKNOWN = Interval(np.nan, np.nan, "none", "not given")


@pytest.mark.parametrize(("cut", "mae"), [(1e12, 0.28), (10**12.4, 0.77)])
def test_holdout_of_the_largest_compute(cut, mae):
    fitted, scored = cut >= COMPUTE, (cut < COMPUTE) & LAION_2B
    others = Problem(POWER, COMPUTE[fitted], ERROR[fitted], frontier="cherti2023")
    assert 100 * holdout(others, COMPUTE[scored], ERROR[scored]) == pytest.approx(mae, abs=0.01)


def test_holdout_by_hand():
    held = COMPUTE > 1e12
    found = holdout(Problem(POWER, COMPUTE, ERROR).where(~held), COMPUTE[held], ERROR[held])
    alpha, level = np.polyfit(np.log(COMPUTE[COMPUTE < 1e12]), np.log(ERROR[COMPUTE < 1e12]), 1)
    predicted = np.exp(level) * COMPUTE[COMPUTE > 1e12] ** alpha
    assert found == pytest.approx(np.abs(predicted - ERROR[COMPUTE > 1e12]).mean())


def test_holdout_without_models_beyond_the_cut():
    with pytest.raises(MeasureError, match="no model lies beyond the cut"):
        holdout(Problem(POWER, COMPUTE, ERROR), COMPUTE[:0], ERROR[:0])


@pytest.mark.parametrize(("name", "frontier"), [("power", "none"), ("power", "quantile"), ("power_floor", "none")])
def test_leave_one_out_refits_without_each_model(name, frontier):
    law = LAWS[name]
    found = leave_one_out(Problem(law, COMPUTE, ERROR, frontier=frontier))
    for i in (0, 13, 28):
        others = np.arange(len(ERROR)) != i
        refit = fit(law, COMPUTE[others], ERROR[others], frontier=frontier)
        assert found[i] == pytest.approx((law.error(COMPUTE[i : i + 1], refit.params)[0] - ERROR[i]), rel=1e-4)


def judged(x, error, frontier="none"):
    return verdict(uncertainty(Problem(POWER, x, error, frontier=frontier)).intervals["alpha"], x, error)


@pytest.mark.parametrize("frontier", ["none", "cherti2023", "quantile", "pareto", "hull"])
def test_imagenet_scales_and_noise_does_not(frontier):
    assert judged(COMPUTE, ERROR, frontier) == SCALING
    flat = 0.8 * np.exp(np.random.default_rng(3).normal(0, 0.01, 29))
    assert judged(COMPUTE, flat, frontier) == NO_SCALING
    assert judged(COMPUTE, 0.1 * COMPUTE**0.03 * flat, frontier) == NO_SCALING


def test_three_points_may_be_too_few():
    assert judged(WIT_COMPUTE, WIT_ERROR) == SCALING
    assert judged(WIT_COMPUTE, np.array([0.3, 0.2, 0.25])) == TOO_FEW
    assert verdict(UNKNOWN, WIT_COMPUTE[:2], WIT_ERROR[:2]) == TOO_FEW


def test_verdict_on_joint_laws():
    rng = np.random.default_rng(0)
    x = np.stack([10 ** rng.uniform(7, 9, 29), 10 ** rng.uniform(8, 11, 29)], axis=1)
    law = LogLinear(("n", "d"))
    for exponents, expected in (((-0.1, -0.05), SCALING), ((0.0, 0.0), NO_SCALING), ((0.1, 0.05), NO_SCALING)):
        error = (
            0.4 * (x[:, 0] / 1e8) ** exponents[0] * (x[:, 1] / 1e9) ** exponents[1] * np.exp(rng.normal(0, 0.02, 29))
        )
        assert joint_verdict(Problem(law, x, error)) == expected
    assert joint_verdict(Problem(law, x[:4], error[:4])) == TOO_FEW


def test_floors_that_may_be_zero_are_reported():
    assert "from 0 to 0.168" in floor_note(Interval(0.0, 0.168, "profile"))
    assert floor_note(Interval(0.01, 0.168, "profile")) == floor_note(UNKNOWN) == ""

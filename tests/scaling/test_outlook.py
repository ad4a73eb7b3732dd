"""The interval of one later model: worked by hand for a power law, on planted laws, and on models measured later."""

from __future__ import annotations

import numpy as np
import pytest
from imagenet_cherti2023 import COMPUTE, ERROR

from clipeval.errors import MeasureError
from clipeval.scaling.frontier import on_frontier
from clipeval.scaling.laws import LAWS
from clipeval.scaling.uncertainty.outlook import AVERAGED, CURVE, ZOO, foresight, outlook

DECADE = np.log(10)
TRUTHS = {
    "power": lambda x: 5.9 * x**-0.1114,
    "floor": lambda x: 60 * x**-0.25 + 0.12,
    "m4": lambda x: LAWS["m4"].error(x, np.array([-0.25, np.exp(4.2) * 0.899**0.8, 0.1, 0.999, 0.8])),
    "bending": lambda x: 9 * (x + 3e11) ** -0.13,
}
NOISES = (
    lambda rng, n: rng.normal(0, 0.02 * DECADE, n),
    lambda rng, n: rng.exponential(0.05 * DECADE, n),
)


def line(x, y, at):
    """Forecast, variance of the line, and residual variance of a straight line, by the textbook."""
    slope, level = np.polyfit(x, y, 1)
    scatter = ((y - slope * x - level) ** 2).sum() / (len(x) - 2)
    return slope * at + level, scatter * (1 / len(x) + (at - x.mean()) ** 2 / ((x - x.mean()) ** 2).sum()), scatter


@pytest.mark.parametrize(("spacing", "cuts"), [(ZOO, (6.5, 6, 5.5)), (CURVE, (6, 5, 4))])
def test_by_hand_for_a_power_law(spacing, cuts):
    """Points every half decade from 1 to 1e7, and a target a decade beyond: what lies a decade beyond each cut."""
    x = np.arange(0, 7.1, 0.5) * DECADE
    y = -1 - 0.1 * x + np.random.default_rng(0).normal(0, 0.03, len(x))
    at = 8 * DECADE
    missed = []
    for cut in cuts:
        before, ahead = x <= cut * DECADE + 1e-6, np.flatnonzero(x <= min(cut + 1, 7) * DECADE + 1e-6)[-1]
        missed.append(line(x[before], y[before], x[ahead])[0] - y[ahead])
    centre, of_line, scatter = line(x, y, at)
    square = max(np.mean(np.square(missed)), scatter)
    found = outlook(np.exp(x), np.exp(y), np.exp(at), spacing=spacing, laws=["power"])
    assert np.log(found.centre) == pytest.approx(centre)
    assert np.log(found.high) == pytest.approx(centre + 1.96 * np.sqrt(of_line + scatter + square))
    assert np.log(found.low) == pytest.approx(centre - 1.96 * np.sqrt(of_line + scatter + square))
    assert np.log(found.law_low) == pytest.approx(centre - 1.96 * np.sqrt(of_line))
    assert found.past_n >= 2
    (law,) = found.laws
    assert (law.line_sd, law.scatter_sd) == pytest.approx((np.sqrt(of_line), np.sqrt(scatter)))
    assert law.past_rmse == pytest.approx(np.sqrt(np.mean(np.square(missed))))
    measured = [np.exp(y[np.flatnonzero(x <= min(cut + 1, 7) * DECADE + 1e-6)[-1]]) for cut in cuts]
    assert found.past_mae == pytest.approx(np.mean(np.abs(np.multiply(measured, np.expm1(missed)))))
    assert found.decades_beyond == pytest.approx(1)


def test_laws_count_by_fit_and_by_forecast():
    """With two laws: weights exp(-AICc / 2) / S**2, S**2 with one more deviation of the usual size."""
    x = np.geomspace(1e9, 1e13, 17)
    error = TRUTHS["floor"](x) * np.exp(np.random.default_rng(3).normal(0, 0.02, 17))
    found = outlook(x, error, 3e13, laws=["power", "power_floor"])
    by_name = {law.law: law for law in found.laws}
    seen = {one.law: one for one in foresight(x, error, 3e13, laws=["power", "power_floor"])}
    usual = np.median([np.mean(one.deviation**2) for one in seen.values()])
    size = {name: max((3 * one.rmse**2 + usual) / 4, by_name[name].scatter_sd ** 2) for name, one in seen.items()}
    odds = np.exp((by_name["power"].aicc - by_name["power_floor"].aicc) / 2) * size["power"] / size["power_floor"]
    assert by_name["power_floor"].weight / by_name["power"].weight == pytest.approx(odds)
    weight = np.array([law.weight for law in found.laws])
    value = np.log([law.error for law in found.laws])
    centre = weight @ value / weight.sum()
    variance = sum(
        law.weight * ((v - centre) ** 2 + law.line_sd**2 + law.scatter_sd**2 + size[law.law])
        for law, v in zip(found.laws, value, strict=True)
    )
    assert weight.sum() == pytest.approx(1)
    assert np.log([found.low, found.high]) == pytest.approx(centre + 1.96 * np.sqrt(variance) * np.array([-1, 1]))


def test_foresight_is_of_earlier_points_only():
    """What lies behind the cut does not matter to the forecast from it, and the best forecaster comes first."""
    x = np.geomspace(1e9, 1e13, 17)
    error = TRUTHS["floor"](x) * np.exp(np.random.default_rng(3).normal(0, 0.005, 17))
    first, *others = foresight(x, error, 1e14)
    assert first.law == "power_floor"
    assert all(first.rmse <= other.rmse for other in others)
    changed = error.copy()
    changed[-1] *= 1.5
    moved = {one.law: one for one in foresight(x, changed, 1e14)}
    before = {one.law: one for one in foresight(x, error, 1e14)}
    for name in AVERAGED:
        # a decade beyond the third cut lie all but the last points
        difference = moved[name].deviation - before[name].deviation
        assert difference == pytest.approx([-np.log(1.5), -np.log(1.5), 0])


def test_a_law_that_could_not_be_checked_does_not_count():
    """M4 fits nine points best, exactly even, but six below the first cut are too few for it."""
    x = np.geomspace(1e9, 1e11, 9)
    error = TRUTHS["m4"](x)
    found = outlook(x, error, 2.5e12)
    by_name = {law.law: law for law in found.laws}
    assert by_name["m4"].aicc == min(law.aicc for law in found.laws)
    assert (by_name["m4"].weight, np.isnan(by_name["m4"].past_rmse)) == (0, True)
    assert sum(law.weight for law in found.laws) == pytest.approx(1)


def test_without_a_past():
    """Four points: laws count equally, 2.5 standard deviations, and a note."""
    x, error = np.array([1e9, 1e10, 1e11, 1e12]), np.array([0.8, 0.63, 0.52, 0.4])
    found = outlook(x, error, 1e13)
    centre, of_line, scatter = line(np.log(x), np.log(error), np.log(1e13))
    assert [law.law for law in found.laws] == ["power"]
    assert np.log(found.high) == pytest.approx(centre + 2.5 * np.sqrt(of_line + scatter))
    assert (found.past_n, np.isnan(found.past_mae)) == (0, True)
    assert found.notes[0].startswith("not checked against the past")


def test_notes():
    x = np.geomspace(1e9, 1e12, 12)
    error = TRUTHS["power"](x) * np.exp(np.random.default_rng(0).normal(0, 0.01, 12))
    assert outlook(x, error, 9e12).notes == ("assumes that the law does not bend more than it has",)
    assert outlook(x, error, 1.1e13).notes[-1] == "more than a decade beyond the data"


def test_too_few_points_are_refused():
    for x in ([1e9, 1e10, 1e11], [1e9] * 6):
        with pytest.raises(MeasureError, match="points to spare"):
            outlook(np.array(x), np.linspace(0.5, 0.4, len(x)), 1e12)


def test_losses_are_forecast_as_errors_are():
    """All is relative to the error, so that a loss of any size has the same interval in per cent; M4 ends at 1."""
    x = np.geomspace(1e9, 1e12, 12)
    error = TRUTHS["power"](x) * np.exp(np.random.default_rng(0).normal(0, 0.01, 12))
    one, ten = outlook(x, error, 3e12, laws=AVERAGED[:3]), outlook(x, 10 * error, 3e12)
    assert [ten.centre, ten.low, ten.high] == pytest.approx([10 * v for v in (one.centre, one.low, one.high)], rel=1e-4)


# --- models that came later


@pytest.mark.parametrize(
    ("gmacs", "samples", "accuracy"), [(290.58, 34e9, 0.7847), (532.68, 39e9, 0.8009)], ids=["g/14", "bigG/14"]
)
def test_later_models_of_laion(gmacs, samples, accuracy):
    """ImageNet: what the 29 models of Cherti et al. say of two that were measured afterwards."""
    best = on_frontier("pareto", COMPUTE, ERROR)
    found = outlook(COMPUTE[best], ERROR[best], gmacs * samples)
    assert found.low <= 1 - accuracy <= found.high
    assert found.high - found.low < 0.05
    assert found.past_n >= 2


# --- planted laws


def covered(truth, n, ahead, noise, seed):
    rng = np.random.default_rng(seed)
    x = np.geomspace(1.8e10, 6.6e12, n)
    at = x[-1:] * 10**ahead
    error = TRUTHS[truth](x) * np.exp(NOISES[noise](rng, n))
    later = TRUTHS[truth](at)[0] * np.exp(NOISES[noise](rng, 1)[0])
    found = outlook(x, error, at[0])
    assert np.log(found.high / found.low) / 2 >= 1.96 * min(law.scatter_sd for law in found.laws)
    assert found.low < found.law_low < found.centre < found.law_high < found.high
    return found.low <= later <= found.high


def coverage(truths, draws):
    return np.mean([
        covered(truth, n, ahead, noise, 10 * seed + noise)
        for truth in truths for n in (9, 29) for ahead in (0.5, 1.0) for noise in (0, 1) for seed in range(draws)
    ])  # fmt: skip


def test_planted_laws_are_covered():
    """48 later models, half a decade and a decade beyond 9 and 29 points, of normal and of one-sided scatter."""
    assert 0.90 <= coverage(("power", "floor", "m4"), 2) <= 1.0


def test_a_law_that_bends_in_the_last_decade():
    """Its own points hardly show the bend, and the best fit's band holds 10 to 64 % of later models."""
    assert coverage(("bending",), 2) >= 0.70

"""Towers, robustness and budgets from the command line, on planted laws, and estimators chosen by name."""

from __future__ import annotations

import json
import sys

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from tables import fit as estimate
from tables import table

from clipeval.cli import main
from clipeval.results.published import published
from clipeval.scaling.fit import fit
from clipeval.scaling.laws import LAWS
from clipeval.scaling.minimise import HUBER
from clipeval.scaling.problem import Problem, noise_weights

POWER = LAWS["power"]
BASE = {"source": "a", "dataset": "d", "task": "zeroshot_classification", "metric": "acc1"}


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    def run(rows, *words):
        rows.to_csv(tmp_path / "results.csv", index=False)
        monkeypatch.setattr(sys, "argv", ["clipeval", "fit", str(tmp_path / "results.csv"), *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        assert not ended.value.code
        return capsys.readouterr().out

    return run


def towers():
    """E = 0.5 I**-0.2 T**-0.05 of 30 checkpoints."""
    rng = np.random.default_rng(0)
    image, text = 10 ** rng.uniform(0, 2.5, 30), 10 ** rng.uniform(0, 1.5, 30)
    error = 0.5 * image**-0.2 * text**-0.05
    return pd.DataFrame({"model": [f"m{i}" for i in range(30)], "gmacs_image": image, "gmacs_text": text}).assign(
        **BASE, value=1 - error
    )


def test_towers_jointly(run):
    (law,) = json.loads(run(towers(), "--x", "gmacs_image,gmacs_text", "--json"))["fits"]
    assert law["params"] == pytest.approx({"alpha_gmacs_image": -0.2, "alpha_gmacs_text": -0.05, "beta": 0.5})
    assert law["intervals"]["alpha_gmacs_image"] == pytest.approx([-0.2, -0.2])
    out = run(towers(), "--x", "gmacs_image,gmacs_text")
    assert "alpha_gmacs_image -0.200000 [-0.200000, -0.200000]" in out


def test_towers_alone(run):
    rows = towers().assign(value=lambda t: 1 - 0.5 * t["gmacs_text"] ** -0.3)
    (law,) = json.loads(run(rows, "--x", "gmacs_text", "--json"))["fits"]
    assert (law["alpha"], law["beta"]) == (pytest.approx(-0.3), pytest.approx(0.5))


@pytest.mark.parametrize("x", ["gmacs_image", "gmacs_text", "params", "params_image", "params_text"])
def test_published_towers_are_columns_to_fit(x):
    laws = fit(datasets=["imagenet1k"], x=x, bootstrap=100).fits.set_index("source")
    assert laws["n_models"].to_dict() == {"LAION": 29, "CLIP-WIT": 3}
    assert (laws["alpha"] < 0).all()


def budgeted():
    """E = 0.05 + 0.4 G**-0.3 + 100 S**-0.3."""
    rows = []
    for arch, gmacs in (("S", 2.0), ("M", 7.4), ("L", 20.0), ("XL", 90.0), ("XXL", 200.0)):
        for samples in (1e8, 1e9, 1e10, 3e10):
            error = 0.05 + 0.4 * gmacs**-0.3 + 100 * samples**-0.3
            row = {"model": f"{arch}{samples:.0e}", "arch": arch, "gmacs": gmacs, "samples_seen": samples}
            rows.append(BASE | row | {"value": 1 - error})
    return pd.DataFrame(rows)


def test_the_best_use_of_a_budget(run, tmp_path):
    budget = 1e11
    words = ("--budget", budget, "--bootstrap", 100)
    document = json.loads(run(budgeted(), *words, "--json", "-o", tmp_path / "out"))
    assert list(document) == ["fits", "comparisons", "forecasts", "allocations", "joint_laws", "growth"]
    assert document["fits"][0]["law"] == "joint_nd"
    optimum, *architectures = document["allocations"]
    closed_form = (0.4 / 100 * budget**0.3) ** (1 / 0.6)
    assert optimum["gmacs"] == pytest.approx(closed_form, rel=0.02)
    assert optimum["samples_seen"] == pytest.approx(budget / optimum["gmacs"])
    assert optimum["flat_low"] < closed_form < optimum["flat_high"]
    assert [row["arch"] for row in architectures] == ["S", "M", "L", "XL", "XXL"]
    assert len(pd.read_csv(tmp_path / "out" / "allocations.csv")) == 6
    best = min(architectures, key=lambda row: row["error"])
    out = run(budgeted(), *words)
    assert "What 1e+11 GMACs are best spent on" in out
    assert f" {best['arch']} " in out


def test_an_optimum_at_the_end_of_the_data_says_so(run):
    """The larger the budget the larger the best model: at 1e13 it is the largest one or larger, and has no interval."""
    for budget, edge, sign in ((1e13, "largest", "≥ 200.0 (largest model seen)"), (1e8, "smallest", "≤ 2.000")):
        words = ("--budget", budget, "--bootstrap", 100)
        optimum = json.loads(run(budgeted(), *words, "--json"))["allocations"][0]
        assert (optimum["edge"], optimum["gmacs_low"], optimum["gmacs_high"]) == (edge, None, None)
        assert sign in run(budgeted(), *words)


def test_an_open_end_of_the_interval_of_an_optimum():
    """Within the data, but so uncertain that more than 2.5 % of the draws end at the largest model."""
    rows = budgeted()
    noise = np.random.default_rng(1).normal(0, 0.1, len(rows))
    rows["value"] = 1 - (1 - rows["value"]) * np.exp(noise)
    result = fit(rows, budget=1e12, bootstrap=400)
    best = result.more["allocations"].iloc[0]
    law = result.laws[0]
    grid = np.geomspace(2.0, 200.0, 400)
    chosen = law.law.error(np.stack([grid, 1e12 / grid], axis=1), law.known.draws).argmin(1)
    assert best["edge"] == ""
    assert np.isnan(best["gmacs_high"]) == ((chosen == 399).mean() > 0.025)
    assert np.isnan(best["gmacs_low"]) == ((chosen == 0).mean() > 0.025)
    assert np.isnan([best["gmacs_low"], best["gmacs_high"]]).any()


@pytest.mark.parametrize("budget", [1e3, 1e5, 1e7])
def test_a_budget_too_small_for_the_law_has_no_advice(budget):
    result = fit(budgeted(), budget=budget, bootstrap=100)
    assert result.more["allocations"].empty
    assert "too small for this law, of which the errors are above 100 %" in result.notes[-1]


@pytest.mark.parametrize("budget", [1e15, 1e16])
def test_a_budget_far_beyond_the_data_has_no_advice(budget):
    result = fit(budgeted(), budget=budget, bootstrap=100)
    assert result.more["allocations"].empty
    beyond = np.log10(budget / 200.0 / 3e10)
    assert f"its best use lies {beyond:.1f} decades beyond the data" in result.notes[-1]


@pytest.mark.parametrize("budget", 10.0 ** np.arange(3, 17))
def test_flat_data_have_no_advice_for_any_budget(budget):
    rows = budgeted()
    rows["value"] = 0.3 + np.random.default_rng(3).normal(0, 0.01, len(rows))
    result = fit(rows, budget=budget, bootstrap=100)
    assert result.more["allocations"].empty
    assert any("no advice for a budget: no-scaling" in note for note in result.notes)


def test_a_budget_counts_repeated_samples_where_the_table_knows_them():
    found = fit(task="classification", datasets=["imagenet1k"], budget=1e12, bootstrap=100)
    laion = found.fits.set_index("source").loc["LAION"]
    assert (laion["law"], laion["x"]) == ("joint_repeats", "gmacs,samples_seen,unique_samples")
    chosen = found.more["allocations"]
    best = chosen[chosen["kind"] == "architecture"].sort_values("error").iloc[0]
    params = np.array(list(laion["params"].values()))
    own = published()[lambda t: (t["study"] == "cherti2023") & (t["source_family"] == "LAION")]
    scales = np.array([[best["gmacs"], 1e12 / best["gmacs"], own["unique_samples"].max()]])
    assert best["error"] == pytest.approx(LAWS["joint_repeats"].error(scales, params)[0])


def shifted():
    """Source b is 0.3 higher in logit accuracy under the shift than a at the same accuracy without."""
    rng = np.random.default_rng(2)
    rows = []
    for source, extra in (("a", 0.0), ("b", 0.3)):
        for i, accuracy in enumerate(np.linspace(0.3, 0.8, 8)):
            logit = 1.1 * np.log(accuracy / (1 - accuracy)) - 0.5 + extra + rng.normal(0, 0.05)
            base = BASE | {"model": f"{source}{i}", "source": source, "gmacs": 7.4, "samples_seen": 1e9 * (i + 1)}
            rows.append(base | {"dataset": "photos", "value": accuracy})
            rows.append(base | {"dataset": "sketches", "value": 1 / (1 + np.exp(-logit))})
    return pd.DataFrame(rows)


def test_effective_robustness(run):
    words = ("--robustness", "sketches", "--against", "photos", "--bootstrap", 100)
    document = json.loads(run(shifted(), *words, "--json"))
    assert list(document) == ["fits", "comparisons", "forecasts", "robustness", "robustness_lines"]
    (pair,), lines = document["robustness"], document["robustness_lines"]
    assert pair["logit_low"] < -0.3 < pair["logit_high"]
    assert pair["test"] == "Welch"
    for row in lines:
        own = shifted()[lambda t, s=row["source"]: t["source"] == s].pivot(index="model", columns="dataset")["value"]
        logits = np.log(own / (1 - own))
        line = stats.linregress(logits["photos"], logits["sketches"])
        half = stats.t.ppf(0.975, 6) * line.stderr
        assert (row["slope"], row["slope_low"]) == pytest.approx((line.slope, line.slope - half))
    out = run(shifted(), *words)
    assert "Effective robustness: a minus b where both are equally accurate without the shift" in out


def test_estimators_by_name():
    rows = table(n=12, noise=0.05).assign(n=[50_000, 400] * 12)
    for name in ("huber", "weighted"):
        found = fit(rows, estimator=name, bootstrap=100)
        assert found.card["estimator"].startswith(name)
        for law in found.laws:
            x, error = law.points.x, law.points.error
            weights = noise_weights(Problem(POWER, x, error), law.points.samples) if name == "weighted" else None
            options = {"weights": weights} if name == "weighted" else {"loss": HUBER}
            assert law.estimate.params == pytest.approx(estimate(POWER, x, error, **options).params)
            assert law.frontier == "none"
            assert law.known.intervals["alpha"].low < law.estimate["alpha"] < law.known.intervals["alpha"].high


def test_curves_have_no_frontier_unless_one_is_named():
    found = fit(datasets=["imagenet1k"], law="power_floor", bootstrap=100).fits.set_index("source").loc["LAION"]
    assert found["frontier"] == "none"
    assert found["e_inf_low"] <= found["e_inf"] < found["e_inf_high"]


def test_information_criteria_of_a_quantile_are_those_of_the_asymmetric_laplace_distribution():
    rng = np.random.default_rng(0)
    x, error = np.logspace(9, 12, 23), np.exp(rng.normal(-1, 0.1, 23))
    found = estimate(POWER, x, error, frontier="quantile")
    residual = np.log(error) - np.log(POWER.error(x, found.params))
    spread = np.where(residual > 0, 0.1 * residual, -0.9 * residual).mean()
    density = stats.laplace_asymmetric(kappa=(0.1 / 0.9) ** 0.5, scale=spread / (0.1 * 0.9) ** 0.5)
    deviance = -2 * density.logpdf(residual).sum() - 23 * (1 + np.log(2 * np.pi))
    assert found.bic == pytest.approx(deviance + 3 * np.log(23), rel=1e-2)

"""``fit --mixtures``: planted laws of shares and compute, from a table to the best mixture, and when there is none."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize_scalar
from typer.testing import CliRunner

from clipeval.cli import app
from clipeval.errors import MeasureError, UsageError
from clipeval.scaling.fit import fit
from clipeval.scaling.questions.mixing import NO_EFFECT
from clipeval.scaling.questions.mixtures import MixtureLaw, fit_mixture

TRIED = (0, 0.1, 0.25, 0.5, 0.75, 0.9, 1)
COMPUTE = np.array([1e4, 2e4, 4e4, 1e5])
CENTRE = float(np.log(COMPUTE).mean())
LAWS = {
    "of-a": MixtureLaw(0.05, np.array([-1.5, -0.4]), 0.0, np.array([-0.2, -0.05]), CENTRE),
    "of-b": MixtureLaw(0.05, np.array([-0.5, -1.4]), 0.0, np.array([-0.05, -0.15]), CENTRE),
}


def planted(laws=LAWS, tried=TRIED, noise=0.001, seed=0):
    """Runs of each mixture at four scales, measured on a data set per law. Single sources have no shares."""
    rng, rows = np.random.default_rng(seed), []
    for a in tried:
        mixed = {"source": "a+b", "mix.a": a, "mix.b": 1 - a} if 0 < a < 1 else {"source": "a" if a else "b"}
        for compute in COMPUTE:
            run = {"model": f"{a}-{compute:g}", "gmacs": compute / 1e3, "samples_seen": 1e3} | mixed
            for dataset, law in laws.items():
                error = law.loss(np.array([[a, 1 - a]]), np.log(compute))[0] * np.exp(rng.normal(0, noise))
                rows.append(run | {"dataset": dataset, "value": 1 - error})
    return pd.DataFrame(rows).assign(task="zeroshot_classification", metric="acc1")


def mean_of(laws, a):
    """The mean error at the largest compute."""
    return np.mean([law.loss(np.array([[a, 1 - a]]), np.log(COMPUTE[-1]))[0] for law in laws.values()])


def test_the_best_mixture_of_two_data_sets():
    found = fit(planted(), mixtures=True, bootstrap=200)
    rows = found.more["mixtures"].set_index("dataset")
    expected = minimize_scalar(lambda a: mean_of(LAWS, a), bounds=(0, 1), method="bounded")
    both = rows.loc["mean of 2 data sets"]
    assert both["mix.a"] == pytest.approx(expected.x, abs=0.02)
    assert both["mix.a_low"] <= expected.x <= both["mix.a_high"]
    assert both["mix.a_high"] - both["mix.a_low"] < 0.1
    assert both["error"] == pytest.approx(expected.fun, rel=3e-3)
    assert both["error_low"] <= expected.fun <= both["error_high"]
    assert both["run_high"] - both["run_low"] > both["error_high"] - both["error_low"]
    assert both["at"] == pytest.approx(1e5)
    # by its own law each data set is best served by one source
    assert rows.loc["of-a", ["mix.a", "mix.b"]].tolist() == [1, 0]
    assert rows.loc["of-b", ["mix.a", "mix.b"]].tolist() == [0, 1]
    assert (rows["loo_error"] < 0.01).all()
    assert (rows["loo_error_without"] > 5 * rows["loo_error"]).all()
    assert rows["inside"].all()
    assert (rows["n_mixtures"] == 7).all()
    assert found.fits.empty
    assert found.comparisons.empty


def test_the_planted_exponents_are_found_where_sources_have_their_own():
    shares = np.array([[a, 1 - a] for a in TRIED for _ in COMPUTE])
    log_compute = np.tile(np.log(COMPUTE), len(TRIED))
    own = LAWS["of-a"]
    found = fit_mixture(shares, own.loss(shares, log_compute), log_compute)
    np.testing.assert_allclose(found.exponents, own.exponents, rtol=1e-4)
    np.testing.assert_allclose(found.slopes, own.slopes, rtol=1e-4)
    assert (found.floor, found.parameters) == (pytest.approx(0.05, rel=1e-3), 5)
    shared = MixtureLaw(0.1, own.slopes, 0.0, np.full(2, -0.1), CENTRE)
    noise = np.exp(np.random.default_rng(0).normal(0, 0.002, (20, len(shares))))
    again = [fit_mixture(shares, shared.loss(shares, log_compute) * one, log_compute) for one in noise]
    assert sum(law.parameters == 4 for law in again) >= 14
    np.testing.assert_allclose([law.exponents for law in again], -0.1, atol=0.01)
    # at another compute it is a law of the mixture alone
    np.testing.assert_allclose(found.at(9.0).loss(shares), found.loss(shares, 9.0))


def test_shares_without_effect_have_no_best_mixture():
    flat = {"birds": MixtureLaw(0.05, np.array([-1.0, -1.0]), 0.0, np.array([-0.1, -0.1]), CENTRE)}
    seen = [
        fit(planted(flat, noise=0.02, seed=seed), mixtures=True, bootstrap=100).more["mixtures"] for seed in range(8)
    ]
    verdicts = [one["verdict"].iloc[0] for one in seen]
    assert sum(verdict in (NO_EFFECT, "cannot be told apart from any mixture tried") for verdict in verdicts) >= 7
    nothing = seen[verdicts.index(NO_EFFECT)].iloc[0]
    assert nothing["loo_error_without"] <= nothing["loo_error"]
    assert "mix.a" not in nothing


def test_beyond_the_mixtures_tried_and_mixtures_that_are_as_good():
    narrow = (0.3, 0.4, 0.45, 0.5, 0.6, 0.7)
    (row,) = fit(planted({"d": LAWS["of-a"]}, narrow), mixtures=True, bootstrap=200).more["mixtures"].to_dict("records")
    assert (row["mix.a"], row["inside"]) == (1, False)
    assert "beyond the mixtures tried" in row["verdict"]
    noisy = fit(planted(noise=0.1, seed=1), mixtures=True, bootstrap=200).more["mixtures"].set_index("dataset")
    both = noisy.loc["mean of 2 data sets"]
    assert "cannot be told apart from" in both["verdict"]
    assert "0.75 a + 0.25 b" in both["alike"]
    assert both["mix.a_low"] < 0.75


def test_too_few_mixtures_say_how_many_are_needed():
    with pytest.raises(MeasureError, match="5 different mixtures of 2 sources: a mixture law needs at least 6"):
        fit(planted(tried=TRIED[1:6]), mixtures=True, bootstrap=200)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"x": "gmacs,samples_seen"}, "--mixtures needs one scale"),
        ({"law": "power_floor"}, "--mixtures fits a law of its own"),
        ({"budget": 1e4}, "--mixtures fits a law of its own"),
        ({"forecasts": ["ViT-B-32:1B"]}, "--mixtures fits a law of its own"),
    ],
)
def test_what_does_not_go_together(options, message):
    with pytest.raises(UsageError, match=message):
        fit(planted(), mixtures=True, bootstrap=200, **options)


def test_a_table_without_shares():
    with pytest.raises(UsageError, match=r"has no shares of sources\. Columns mix\.SOURCE"):
        fit(planted().drop(columns=["mix.a", "mix.b"]), mixtures=True, bootstrap=200)


def test_shares_that_do_not_sum_to_one():
    rows = planted().assign(**{"mix.b": lambda t: t["mix.b"] * 1.1})
    with pytest.raises(MeasureError, match="they must be at least 0 and sum to 1"):
        fit(rows, mixtures=True, bootstrap=200)


def test_runs_of_other_sources_are_left_out_and_counted():
    other = planted().iloc[:2].assign(source="c", model="other", **{"mix.a": np.nan, "mix.b": np.nan})
    found = fit(pd.concat([planted(), other]), mixtures=True, bootstrap=200)
    assert any("1 of 29 points of of-a are of other sources, and left out" in note for note in found.notes)
    expected = fit(planted(), mixtures=True, bootstrap=200).more["mixtures"]
    alone = found.more["mixtures"]["dataset"].isin(LAWS)
    pd.testing.assert_frame_equal(found.more["mixtures"][alone], expected[expected["dataset"].isin(LAWS)])


def test_other_laws_take_each_mixture_as_a_source():
    sources = [law.points.source for law in fit(planted(), datasets=["of-a"], bootstrap=100).laws]
    assert sources == [
        "0.1 a + 0.9 b",
        "0.25 a + 0.75 b",
        "0.5 a + 0.5 b",
        "0.75 a + 0.25 b",
        "0.9 a + 0.1 b",
        "a",
        "b",
    ]


def test_on_the_terminal_and_in_files(tmp_path):
    planted().to_csv(tmp_path / "t.csv", index=False)
    words = ["fit", str(tmp_path / "t.csv"), "--mixtures", "--bootstrap", "200"]
    shown = CliRunner().invoke(app, [*words, "-o", str(tmp_path / "out")], env={"COLUMNS": "250"})
    assert shown.exit_code == 0, shown.output
    assert "mean of 2 data sets" in shown.output
    written = pd.read_csv(tmp_path / "out" / "mixtures.csv")
    document = json.loads(CliRunner().invoke(app, [*words, "--json"]).stdout)
    assert list(document) == ["fits", "comparisons", "forecasts", "mixtures"]
    assert written["mix.a"].tolist() == pytest.approx([row["mix.a"] for row in document["mixtures"]])
    assert json.loads((tmp_path / "out" / "fit_card.json").read_text())["form"]["law"] == "mixtures"


def test_how_often_the_intervals_hold_the_truth():
    """24 studies with errors of 2 % that all data sets of a run share: of the best share, and of the law's error."""
    best = minimize_scalar(lambda a: mean_of(LAWS, a), bounds=(0, 1), method="bounded")
    shares, errors = 0, 0
    for seed in range(24):
        rng = np.random.default_rng(1000 + seed)
        rows = planted(seed=seed, noise=0.005)
        of_run = {model: np.exp(rng.normal(0, 0.02)) for model in sorted(set(rows["model"]))}
        rows["value"] = 1 - (1 - rows["value"]) * rows["model"].map(of_run)
        row = fit(rows, mixtures=True, bootstrap=120, seed=seed).more["mixtures"].iloc[-1]
        shares += row["mix.a_low"] <= best.x <= row["mix.a_high"]
        errors += row["error_low"] <= mean_of(LAWS, row["mix.a"]) <= row["error_high"]
    assert shares >= 20
    assert errors >= 20

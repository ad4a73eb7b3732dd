"""Laws of losses: the error is the loss itself, any positive number, and is shown as it is."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from tables import table

from clipeval.checks.trend import Trends
from clipeval.errors import MeasureError, UsageError
from clipeval.scaling.fit import fit
from clipeval.scaling.output.show import print_fit
from clipeval.scaling.questions.robustness import effective_robustness
from clipeval.tables import estimate

FLOOR, A, ALPHA, B, BETA = 1.8172, 482.01, 0.3478, 2085.43, 0.3658
"""The law of Chinchilla's runs by Besiroglu et al. 2024 (arXiv 2404.10102)."""


def language_models(noise=0.0, n=6):
    """Losses of n x n runs by that law; nothing says that a lower loss is better but the column."""
    sizes, tokens = (grid.ravel() for grid in np.meshgrid(np.geomspace(7e7, 1.6e10, n), np.geomspace(1e9, 4e11, n)))
    loss = FLOOR + A / sizes**ALPHA + B / tokens**BETA
    loss *= np.exp(np.random.default_rng(0).normal(0, noise, len(loss)))
    columns = {"params": sizes, "samples_seen": tokens, "gmacs": 3 * sizes / 1e9, "value": loss}
    names = {"model": [f"m{i}" for i in range(n * n)], "source": "MassiveText", "dataset": "c4", "task": "language"}
    return pd.DataFrame(names | columns).assign(metric="loss", higher_is_better=False)


@pytest.mark.parametrize("estimator", ["least-squares", "huber"])
def test_the_law_of_chinchilla_is_fitted_to_its_losses(estimator):
    found = fit(language_models(), law="joint_nd", x="params,samples_seen", estimator=estimator, bootstrap=100)
    params = found.fits["params"].item()
    assert params == pytest.approx({"e_inf": FLOOR, "a": A, "alpha_n": -ALPHA, "b": B, "alpha_d": -BETA}, rel=1e-3)
    assert found.card["form"]["error"] == "the loss itself"


def test_a_loss_gives_the_law_of_any_error_that_is_a_share():
    """1 - value of a share and a loss of the same numbers: the same laws, but for what is shown."""
    share = table()
    loss = share.assign(value=1 - share["value"], metric="contrastive_loss", higher_is_better=False)
    both = [fit(rows, bootstrap=200, holdout=1e10, metric=rows["metric"][0]).fits for rows in (share, loss)]
    same = ["alpha", "alpha_low", "alpha_high", "beta", "r2", "aicc", "verdict"]
    pd.testing.assert_frame_equal(both[0][same], both[1][same])
    for name in ("holdout_mae", "loo_mae"):
        assert both[0][name].to_numpy() == pytest.approx(100 * both[1][name].to_numpy())


def test_what_is_not_said_of_a_metric_is_known_by_its_name():
    rows = table().assign(metric="contrastive_loss", value=lambda t: 5 * (1 - t["value"]))
    assert all(law.points.loss for law in fit(rows, bootstrap=200).laws)
    unsaid = rows.assign(higher_is_better=pd.array([None] * len(rows), dtype="boolean"))
    assert all(law.points.loss for law in fit(unsaid, bootstrap=200).laws)
    with pytest.raises(MeasureError, match=r"outside \[0, 1\]"):
        fit(unsaid.assign(metric="bleu", value=30.0), bootstrap=200)


def test_losses_that_have_no_logarithm_are_left_out_and_counted():
    rows = language_models(noise=0.01)
    rows.loc[[3, 4], "value"] = 0.0, np.inf
    left = fit(rows, frontier="none", bootstrap=100).card["data"]["left_out"]
    assert left == {"a loss that is not positive and finite has no logarithm": 2}


def test_rows_that_disagree_on_what_is_better_are_refused():
    rows = language_models()
    rows.loc[5, "higher_is_better"], rows.loc[5, "value"] = True, 0.5
    with pytest.raises(MeasureError, match=r"\(m5, c4, loss\): higher_is_better is another than in other rows"):
        fit(rows)


@pytest.mark.parametrize("law", ["sigmoid", "m4"])
def test_laws_that_end_at_1_are_not_for_losses(law):
    with pytest.raises(MeasureError, match=f"law '{law}' is of shares between 0 and 1, not of a loss"):
        fit(language_models(), law=law)
    ranked = fit(language_models(noise=0.01), frontier="none", bootstrap=100, rank=True).more["laws"]
    assert law not in set(ranked["law"])
    assert {"power", "power_floor", "broken"} <= set(ranked["law"])
    with pytest.raises(MeasureError, match="--estimator weighted is of shares"):
        fit(language_models().assign(n=100), estimator="weighted")
    with pytest.raises(UsageError, match="loss is a loss"):
        effective_robustness(
            language_models().assign(task="zeroshot_classification"), baseline="c4", shifts=["c4"], metric="loss"
        )


def test_forecasts_and_figures_are_in_units_of_the_loss(capsys):
    rows = language_models(noise=0.003)
    found = fit(rows, frontier="none", law="power_floor", forecasts=["ViT-B-32:20B"], bootstrap=200)
    row = found.forecasts.iloc[0]
    assert row["predicted"] > FLOOR
    assert row["predicted_low"] < row["predicted"] < row["predicted_high"]
    print_fit(found)
    shown = capsys.readouterr().out
    assert estimate(*(row[name] for name in ("predicted", "law_low", "law_high"))) in shown
    assert "error E = the loss" in shown
    (figure,) = found.plot().values()
    axis = figure.axes[0]
    assert axis.get_ylabel() == "loss"
    low, high = axis.get_ylim()
    assert low < rows["value"].min() < rows["value"].max() < high < 2 * rows["value"].max()
    (parity,) = fit(rows, law="joint_nd", x="params,samples_seen", bootstrap=100).plot().values()
    assert parity.axes[0].get_xlabel() == "Loss by the law of params, samples_seen"


def test_a_budget_is_spent_on_the_lowest_loss():
    """Of E = e + a N**-alpha + b D**-beta with N in GMACs: N = (alpha a / (beta b) C**beta)**(1 / (alpha + beta))."""
    budget = 1e12
    result = fit(language_models(n=8), budget=budget, bootstrap=100)
    best = result.more["allocations"].iloc[0]
    a = A * (1e9 / 3) ** -ALPHA
    size = (ALPHA * a / (BETA * B) * budget**BETA) ** (1 / (ALPHA + BETA))
    assert best["gmacs"] == pytest.approx(size, rel=0.03)
    assert best["error"] == pytest.approx(FLOOR + a * size**-ALPHA + B * (budget / size) ** -BETA, rel=1e-4)
    assert best["error"] > 1


def test_any_column_of_numbers_is_a_scale():
    rows = language_models(noise=0.001).assign(flops=lambda t: 6 * t["params"] * t["samples_seen"])
    alpha = fit(rows, x="flops", frontier="none", bootstrap=100).fits["alpha"].item()
    line = np.polyfit(np.log(rows["flops"]), np.log(rows["value"]), 1)
    assert alpha == pytest.approx(line[0])


def test_the_trainers_validation_is_fitted_by_its_loss():
    """Rows as ``clipeval_train.validation`` writes them: a loss and recalls, of the task ``validation``."""
    loss = table().assign(task="validation", metric="contrastive_loss", value=lambda t: 8 * (1 - t["value"]), n=4096)
    recall = table().assign(task="validation", metric="image_retrieval_recall@5", n=4096)
    rows = pd.concat([loss.assign(higher_is_better=False), recall.assign(higher_is_better=True)], ignore_index=True)
    found = fit(rows, task="validation", bootstrap=200)
    assert set(found.fits["metric"]) == {"contrastive_loss"}
    assert (found.fits["verdict"] == "scaling").all()
    assert set(fit(rows, metric="image_retrieval_recall@5", bootstrap=200).fits["metric"]) == {
        "image_retrieval_recall@5"
    }


def test_a_loss_above_its_trend_is_worse():
    rows = table(n=12, noise=0.005).assign(metric="contrastive_loss", value=lambda t: 5 * (1 - t["value"]), shots=None)
    own = rows[rows["source"] == "a"].to_dict("records")[6] | {"model": "new", "checkpoint_sha256": None}

    class Baseline:
        frame = rows

    trends = Trends(Baseline())
    assert trends.judge(own, "baseline").verdict == "pass"
    assert "is above the trend" in trends.judge(own | {"value": 1.2 * own["value"]}, "baseline").reason
    assert trends.judge(own | {"value": 1.2 * own["value"]}, "baseline").verdict == "fail"
    assert "below the trend" in trends.judge(own | {"value": 0.8 * own["value"]}, "baseline").reason

"""Laws ranked by AICc."""

from __future__ import annotations

import numpy as np
import pytest

from clipeval.scaling.cherti2023 import default_rows
from clipeval.scaling.fit import fit
from clipeval.scaling.laws import LAWS
from clipeval.scaling.questions.ranking import COLUMNS, rank_laws

X = np.logspace(8, 13, 24)


def test_the_law_that_made_the_data_comes_first():
    noise = np.random.default_rng(0).normal(0, 0.01, len(X))
    error = LAWS["power_floor"].error(X, np.array([-0.4, 900.0, 0.12])) * np.exp(noise)
    ranked, refused = rank_laws([LAWS[name] for name in ("power", "power_floor", "m4", "sigmoid")], X, error)
    assert ranked[0].law == "power_floor"
    assert [e.aicc for e in ranked] == sorted(e.aicc for e in ranked)
    assert refused == {}


def test_aicc_of_a_power_law_by_hand():
    """n ln(RSS / n) + 2 k + 2 k (k + 1) / (n - k - 1), up to a constant of the data, with k counting the variance."""
    error = 5 * X**-0.1 * np.exp(np.random.default_rng(1).normal(0, 0.05, len(X)))
    design = np.stack([np.ones(len(X)), np.log(X)], axis=1)
    rss = np.linalg.lstsq(design, np.log(error), rcond=None)[1][0]
    n = len(X)
    laws = {"power": n * np.log(rss / n) + 2 * 3 + 2 * 3 * 4 / (n - 4)}
    (power,), _ = rank_laws([LAWS["power"]], X, error)
    (floor,), _ = rank_laws([LAWS["power_floor"]], X, error)
    laws["power_floor"] = n * np.log(floor.rss / n) + 2 * 4 + 2 * 4 * 5 / (n - 5)
    assert floor.aicc - power.aicc == pytest.approx(laws["power_floor"] - laws["power"], abs=1e-6)


def test_laws_with_too_few_points_are_named():
    ranked, refused = rank_laws([LAWS["power"], LAWS["broken"]], X[:3], np.array([0.5, 0.4, 0.35]))
    assert [estimate.law for estimate in ranked] == ["power"]
    assert "6 parameters" in refused["broken"]


@pytest.mark.parametrize(
    ("x", "laws"),
    [
        ("gmacs_total", {"power", "power_floor", "shifted", "shifted_floor", "m4", "broken", "sigmoid"}),
        ("gmacs,samples_seen", {"loglinear", "joint_nd", "joint_shared"}),
    ],
)
def test_ranking_of_the_published_checkpoints(x, laws):
    from clipeval.results.published import published

    rows = default_rows(published(), "zeroshot_classification", ["imagenet1k"])
    result = fit(rows, task="classification", datasets=["imagenet1k"], x=x, bootstrap=100, rank=True)
    table = result.more["laws"]
    assert list(table.columns) == list(COLUMNS)
    of_laion = table[table["source"] == "LAION"]
    assert set(of_laion["law"]) == laws
    assert of_laion["aicc"].is_monotonic_increasing
    assert of_laion["delta_aicc"].iloc[0] == 0
    assert (of_laion["n"] == 29).all()

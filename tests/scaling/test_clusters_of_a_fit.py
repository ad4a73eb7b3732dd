"""``--cluster``: points that err together, from the option to intervals, bands and comparisons."""

from __future__ import annotations

import numpy as np
import pytest
from tables import table

from clipeval.errors import MeasureError, UsageError
from clipeval.scaling.fit import fit
from clipeval.scaling.laws import LAWS
from clipeval.scaling.problem import Problem
from clipeval.scaling.uncertainty.clusters import Side, clustered, clustered_band, exponents_differ
from clipeval.scaling.uncertainty.methods import uncertainty


def runs(shift=0.1, n=6, points=7, seed=0):
    """Two sources of n runs of some checkpoints each; all of a run lie above or below the law by the same."""
    rng = np.random.default_rng(seed)
    rows = table(n=n * points, noise=0.005, seed=seed)
    run = np.tile(np.arange(n), points)[: n * points]
    rows["run"] = [f"{source}-{k}" for source, k in zip(rows["source"], np.tile(run, 2), strict=True)]
    of_run = {name: rng.normal(0, shift) for name in sorted(set(rows["run"]))}
    return rows.assign(value=1 - (1 - rows["value"]) * np.exp(rows["run"].map(of_run)))


def test_intervals_are_those_of_clusters_and_say_how_many():
    rows = runs()
    found = fit(rows, cluster="run", bootstrap=20_000)
    assert found.card["cluster"] == "run"
    assert (found.fits["frontier"] == "none").all()
    assert found.fits["clusters"].tolist() == [6, 6]
    for law in found.laws:
        labels = law.points.table["run"].to_numpy(object)
        expected = clustered(Problem(LAWS["power"], law.points.x, law.points.error), labels)
        interval = law.known.intervals["alpha"]
        own = expected.intervals["alpha"]
        assert (interval.low, interval.high) == (own.low, own.high)
        assert (law.known.alpha_se, law.known.alpha_df) == (expected.alpha_se, expected.alpha_df)
        assert interval.method.startswith("CR2 by 6 groups")
        assert any("points come in 6 clusters" in note for note in law.notes)
        at = np.array([np.exp(np.log(law.points.x).mean())])
        band, exact = law.band(at), clustered_band(law.problem, labels, at)
        assert np.log(band[1] / band[0]) == pytest.approx(np.log(exact[1] / exact[0]), rel=0.15)
    assert all("independent" not in law.known.method for law in found.laws)


def test_exponents_are_compared_by_clusters():
    found = fit(runs(), cluster="run", bootstrap=200)
    sides = [Side(law.problem, law.points.table["run"].to_numpy(object)) for law in found.laws]
    row, expected = found.comparisons.iloc[0], exponents_differ(*sides)
    assert row["test"] == "CR2 by clusters"
    assert (row["delta_alpha"], row["p"]) == (pytest.approx(expected.difference), pytest.approx(expected.p))
    assert (row["delta_low"], row["delta_high"]) == (expected.low, expected.high)


def test_too_few_clusters_have_no_interval_and_no_verdict():
    rows = runs(n=2)
    found = fit(rows, cluster="run", bootstrap=200)
    assert found.fits[["alpha_low", "alpha_high"]].isna().all(axis=None)
    assert set(found.fits["verdict"]) == {"too-few-points"}
    assert any("needs at least 3" in note for note in found.notes)


def test_a_curve_in_clusters():
    rows = runs().assign(value=lambda t: t["value"] - 0.05)
    found = fit(rows, law="power_floor", cluster="run", bootstrap=500)
    assert all(law.known.intervals["alpha"].method.startswith("CR2 by 6") for law in found.laws)
    assert all(np.isfinite(law.band(law.points.x)).all() for law in found.laws)


def test_clusters_that_are_not_named_are_offered():
    assert any("--cluster run does not" in note for note in fit(runs(), frontier="none", bootstrap=200).notes)
    assert not any("--cluster" in note for note in fit(runs(shift=0.0), frontier="none", bootstrap=200).notes)


def test_what_clusters_need():
    with pytest.raises(UsageError, match="--cluster nothing: the results table has no such column"):
        fit(runs(), cluster="nothing")
    for options in ({"frontier": "pareto"}, {"estimator": "huber"}):
        with pytest.raises(UsageError, match="--cluster run goes with least squares through all points"):
            fit(runs(), cluster="run", **options)
    with pytest.raises(MeasureError, match=r"row 3 .*--cluster run: no value"):
        fit(runs().assign(run=lambda t: t["run"].where(t.index != 2)), cluster="run")


def test_a_fit_by_clusters_holds_the_truth_where_one_by_points_does_not():
    """The exponent of 100 data sets of 6 runs whose levels differ and whose scales do, too."""
    inside = {None: 0, "run": 0}
    x = np.geomspace(1e9, 1e12, 30)
    labels = np.repeat(np.arange(6), 5).astype(object)
    for seed in range(200):
        rng = np.random.default_rng(seed)
        error = 5 * x**-0.1 * np.exp(rng.normal(0, 0.05, 6)[labels.astype(int)] + rng.normal(0, 0.01, 30))
        for name in inside:
            problem = Problem(LAWS["power"], x, error, draws=100, groups=None if name is None else labels)
            interval = uncertainty(problem).intervals["alpha"]
            inside[name] += interval.low <= -0.1 <= interval.high
    assert inside["run"] >= 180
    assert inside[None] < 160


def test_points_of_a_problem_keep_their_clusters():
    x = np.geomspace(1e9, 1e12, 8)
    problem = Problem(LAWS["power"], x, 5 * x**-0.1, groups=np.array(list("aabbccdd"), dtype=object))
    assert problem.where(x > 1e10).groups.tolist() == list("bbccdd")[-int((x > 1e10).sum()) :]

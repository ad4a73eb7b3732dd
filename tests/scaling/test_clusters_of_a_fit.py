"""``--cluster``: points that err together, from the option to intervals, bands and comparisons."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from tables import table

from clipeval.errors import MeasureError, UsageError
from clipeval.scaling.fit import fit
from clipeval.scaling.laws import LAWS
from clipeval.scaling.problem import Problem
from clipeval.scaling.uncertainty.clusters import ClusterRobust, Side, clustered, clustered_band, exponents_differ
from clipeval.scaling.uncertainty.methods import uncertainty
from clipeval.scaling.uncertainty.random_intercept import random_intercept


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


def test_the_exponent_for_clusters_that_differ_in_level_alone():
    for law in fit(runs(), cluster="run", bootstrap=200).laws:
        design = np.stack([np.log(law.points.x), np.ones(42)], axis=1)
        found = random_intercept(design, np.log(law.points.error), law.problem.groups.tolist())
        low, high = found.interval()
        said = (
            f"if clusters differ in their level alone, alpha is {found.estimate[0]:.6g} [{low[0]:.6g}, {high[0]:.6g}]"
        )
        assert said in law.notes
        alpha = law.known.intervals["alpha"]
        assert high[0] - low[0] < alpha.high - alpha.low
    for options in ({"law": "power_floor"}, {"frontier": "quantile"}):
        assert not any("level alone" in note for note in fit(runs(n=8), cluster="run", bootstrap=100, **options).notes)


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
    with pytest.raises(UsageError, match="--cluster run goes with least squares through all points, or with a fr"):
        fit(runs(), cluster="run", estimator="huber")
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


@pytest.mark.parametrize("frontier", ["quantile", "pareto"])
def test_whole_clusters_are_drawn_for_a_frontier(frontier):
    """Each draw is the frontier of the models of as many runs, found here one by one."""
    found = fit(runs(n=9), cluster="run", frontier=frontier, bootstrap=200)
    assert found.fits["clusters"].tolist() == [9, 9]
    assert found.comparisons["test"].tolist() == ["Welch"]
    for law in found.laws:
        interval, problem = law.known.intervals["alpha"], law.problem
        assert (interval.method, law.frontier) == ("bootstrap over 9 clusters", frontier)
        assert any("points come in 9 clusters" in note for note in law.notes)
        rng, labels, alphas = np.random.default_rng(1), problem.groups, []
        for _ in range(300):
            drawn = rng.choice(np.unique(labels.astype(str)), 9)
            rows = np.concatenate([np.flatnonzero(labels == label) for label in drawn])
            alphas = np.append(
                alphas, Problem(LAWS["power"], problem.x[rows], problem.error[rows], frontier).estimate["alpha"]
            )
        if frontier == "quantile":
            assert 0.88 < ((interval.low <= alphas) & (alphas <= interval.high)).mean() < 0.995
        assert law.known.alpha_se == pytest.approx(np.std(alphas), rel=0.25)
        assert interval.low <= law.estimate["alpha"] <= interval.high
        assert len(law.known.draws) == 0


def test_frontiers_of_few_clusters_and_other_frontiers_have_no_interval():
    few = fit(runs(n=7), cluster="run", frontier="quantile", bootstrap=200)
    assert few.fits["alpha_low"].isna().all()
    assert any("an interval of a frontier by clusters needs at least 8" in note for note in few.notes)
    hull = fit(runs(n=9), cluster="run", frontier="hull", bootstrap=200)
    assert any("too narrow for this frontier" in note for note in hull.notes)


def test_a_frontier_by_clusters_holds_the_truth():
    """12 runs of 2 to 5 checkpoints at scales of their own, each worse than the law by a level of its own."""
    inside = {"quantile": 0, "pareto": 0}
    for seed in range(60):
        rng = np.random.default_rng(seed)
        sizes = rng.integers(2, 6, 12)
        run = np.repeat(np.arange(12), sizes)
        log_x = np.concatenate([rng.uniform(20.7, 25.3) + np.linspace(0, 4.6, size) for size in sizes])
        error = np.exp(1.7 - 0.11 * log_x + rng.exponential(0.115, 12)[run] + rng.normal(0, 0.01, len(run)))
        for name in inside:
            problem = Problem(LAWS["power"], np.exp(log_x), error, name, draws=300, groups=run.astype(object))
            interval = uncertainty(problem).intervals["alpha"]
            inside[name] += interval.low <= -0.11 <= interval.high
    assert inside["quantile"] >= 55
    assert inside["pareto"] >= 51  # of 720 in more designs 92 %


def test_every_model_its_own_cluster_is_the_closed_form_of_hc2():
    """The interval of a whole fit from textbook formulas: HC2, and Satterthwaite's degrees of freedom."""
    rows = table(n=8, noise=0.03, seed=3)
    for law in fit(rows, cluster="model", bootstrap=100).laws:
        log_x, log_error = np.log(law.points.x), np.log(law.points.error)
        design = np.stack([log_x, np.ones(8)], axis=1)
        bread = np.linalg.inv(design.T @ design)
        hat = design @ bread @ design.T
        residual = log_error - hat @ log_error
        weight = (bread @ design.T)[0]
        variance = float((weight**2 * residual**2 / (1 - np.diag(hat))).sum())
        parts = (np.eye(8) - hat) * (weight / np.sqrt(1 - np.diag(hat)))
        eigenvalues = np.linalg.eigvalsh(parts.T @ parts)
        half = stats.t.ppf(0.975, eigenvalues.sum() ** 2 / (eigenvalues**2).sum()) * np.sqrt(variance)
        alpha = law.known.intervals["alpha"]
        assert (alpha.low, alpha.high) == pytest.approx((law.estimate["alpha"] - half, law.estimate["alpha"] + half))


@pytest.mark.parametrize("n", [5, 8, 29])
def test_intervals_by_models_are_not_bold(n):
    """Of 4,000 data sets of independent models: no narrower than they should be, of equal and of unequal scatter."""
    log_x = np.log(10) * np.linspace(9, 12, n)
    robust = ClusterRobust(np.stack([log_x, np.ones(n)], axis=1), range(n))
    rng, (slope, _) = np.random.default_rng(0), np.linalg.pinv(np.stack([log_x, np.ones(n)], axis=1))
    for scatter in (np.full(n, 0.02), np.linspace(0.01, 0.04, n)):
        errors = rng.normal(0, scatter, (4000, n))
        fitted = np.stack([log_x, np.ones(n)], axis=1) @ np.linalg.pinv(np.stack([log_x, np.ones(n)], axis=1))
        half = stats.t.ppf(0.975, robust.df[0]) * robust.se(errors - errors @ fitted.T)[:, 0]
        assert 0.94 < (np.abs(errors @ slope) <= half).mean() < 0.985


def test_points_of_a_problem_keep_their_clusters():
    x = np.geomspace(1e9, 1e12, 8)
    problem = Problem(LAWS["power"], x, 5 * x**-0.1, groups=np.array(list("aabbccdd"), dtype=object))
    assert problem.where(x > 1e10).groups.tolist() == list("bbccdd")[-int((x > 1e10).sum()) :]

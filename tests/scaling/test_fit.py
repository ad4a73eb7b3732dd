"""From a table to laws: which rows are fitted, what is refused and how it is said."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from tables import table

import clipeval
from clipeval.errors import MeasureError, UsageError
from clipeval.results.published import published
from clipeval.results.reading import read_tables
from clipeval.scaling.asked import Question
from clipeval.scaling.fit import fit
from clipeval.scaling.output.result import COMPARISON_COLUMNS, FIT_COLUMNS, FORECAST_COLUMNS
from clipeval.scaling.points import select
from clipeval.scaling.questions.optimal import optimal
from clipeval.scaling.questions.robustness import effective_robustness


def test_eight_columns_are_enough():
    found = fit(table(), bootstrap=200)
    assert list(found.fits["source"]) == ["a", "b"]
    for row in found.fits.itertuples():
        rows = table()[lambda t, source=row.source: t["source"] == source]
        line = stats.linregress(np.log(rows["gmacs"] * rows["samples_seen"]), np.log(1 - rows["value"]))
        half = stats.t.ppf(0.975, 4) * line.stderr
        assert (row.alpha, row.beta) == pytest.approx((line.slope, np.exp(line.intercept)))
        assert (row.alpha_low, row.alpha_high) == pytest.approx((line.slope - half, line.slope + half))
        assert row.r2 == pytest.approx(line.rvalue**2)
        assert (row.n_models, row.n_points, row.frontier, row.verdict) == (6, 6, "none", "scaling")
    assert any("no source_family" in note for note in found.notes)


def test_tables_have_the_columns_of_the_contract_in_order():
    found = fit(table(), forecasts=["ViT-L-14:1B"], bootstrap=200)
    for name, columns in (("fits", FIT_COLUMNS), ("comparisons", COMPARISON_COLUMNS), ("forecasts", FORECAST_COLUMNS)):
        assert tuple(getattr(found, name).columns[: len(columns)]) == columns
        assert list(found.to_dict()) == ["fits", "comparisons", "forecasts"]
    lonely = fit(table()[lambda t: t["source"] == "a"], bootstrap=200)
    assert tuple(lonely.comparisons.columns) == COMPARISON_COLUMNS
    assert tuple(lonely.forecasts.columns) == FORECAST_COLUMNS


def test_the_order_of_rows_does_not_matter():
    shuffled = table().sample(frac=1, random_state=3)
    first, second = fit(table(), bootstrap=200), fit(shuffled, bootstrap=200)
    assert first.to_json() == second.to_json()
    assert first.card == second.card


def test_the_digest_changes_with_a_value():
    changed = table()
    changed.loc[3, "value"] += 1e-12
    assert fit(table(), bootstrap=200).card["data"]["sha256"] != fit(changed, bootstrap=200).card["data"]["sha256"]


def test_the_seed_decides_the_draws():
    def interval(seed):
        return fit(table(n=24), bootstrap=200, seed=seed).fits["alpha_low"].tolist()

    assert interval(1) == interval(1)
    assert interval(1) != interval(2)


def test_sources_that_differ_are_told_apart():
    row = fit(table(), bootstrap=200).comparisons.iloc[0]
    assert (row.source_a, row.source_b, row.verdict) == ("a", "b", "b-scales-better")
    assert row.delta_alpha == pytest.approx(0.08, abs=0.02)
    assert row.delta_low < 0.08 < row.delta_high


def test_checkpoints_of_one_name_are_kept_apart_by_architecture():
    rows = table().assign(model="openai")
    assert fit(rows, bootstrap=200).fits["n_models"].tolist() == [6, 6]


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("value", 1.2, r"row 4 .*outside \[0, 1\] .*: 1.2"),
        ("value", -0.1, r"row 4 .*outside \[0, 1\]"),
        ("gmacs", -7.4, r"row 4 .*gmacs is negative: -7.4"),
        ("gmacs", 0.0, r"row 4 .*gmacs_total \(gmacs x samples_seen\) is not positive"),
        ("samples_seen", np.nan, r"row 4 .*gmacs_total \(gmacs x samples_seen\) is missing"),
        ("samples_seen", -1.0, r"row 4 .*samples_seen is negative"),
        ("source", None, r"row 4 .*no source_family and no source"),
    ],
)
def test_a_wrong_number_names_its_row(column, value, message):
    rows = table()
    rows.loc[3, column] = value
    with pytest.raises(MeasureError, match=message):
        fit(rows)


def test_a_word_in_a_column_of_numbers_names_its_row():
    rows = table().astype({"gmacs": object})
    rows.loc[3, "gmacs"] = "many"
    with pytest.raises(MeasureError, match=r"row 4 .*gmacs is not a number: many"):
        fit(rows)


def test_percentages_are_refused():
    with pytest.raises(MeasureError, match=r"the first of 12 such rows.*"):
        fit(table().assign(value=lambda t: 100 * t["value"]))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"task": "retrieval"}, MeasureError, "no row matches. Tasks in the results table: zeroshot_classification"),
        ({"task": "classificaton"}, UsageError, "Did you mean 'classification'"),
        ({"datasets": ["my-bird"]}, UsageError, "Did you mean 'my-birds'"),
        ({"metric": "acc5"}, MeasureError, "--metric acc5: no row matches. Did you mean 'acc1'"),
        ({"x": "gmac"}, UsageError, "--x gmac: the results table has no such column. Did you mean 'gmacs'"),
        ({"x": "source"}, MeasureError, "source is not a number: a"),
        ({"by": "family"}, UsageError, "--by family: the results table has no such column"),
        ({"law": "powr"}, UsageError, "Did you mean 'power'"),
        ({"law": "joint_nd"}, UsageError, "has 2 scales, --x names 1"),
        ({"frontier": "paretto"}, UsageError, "Did you mean 'pareto'"),
        ({"x": "gmacs,samples_seen", "frontier": "hull"}, UsageError, "needs one scale"),
        ({"preset": "cherti"}, UsageError, "Did you mean 'cherti2023'"),
        ({"bootstrap": 0}, UsageError, "needs at least 100 draws"),
        ({"holdout": -1.0}, UsageError, "must be a positive value"),
        ({"forecasts": ["ViT-L-14"]}, UsageError, "expected ARCHITECTURE:SAMPLES_SEEN"),
    ],
)
def test_wrong_options(options, error, message):
    with pytest.raises(error, match=message):
        fit(table(), **options)


def test_a_column_that_is_missing_or_empty():
    with pytest.raises(UsageError, match="no column 'metric'"):
        fit(table().drop(columns="metric"))
    with pytest.raises(UsageError, match="no column 'value', or nothing in it"):
        fit(table().assign(value=np.nan))
    with pytest.raises(UsageError, match="--x params: the column is empty"):
        fit(table().assign(params=np.nan), x="params")
    with pytest.raises(UsageError, match="neither 'source_family' nor 'source'"):
        fit(table().drop(columns="source"))


def test_one_point_cannot_be_fitted():
    with pytest.raises(MeasureError, match=r"nothing can be fitted. my-birds · acc1 · a: .*1 points"):
        fit(table()[:1])


def test_no_spread_of_compute_cannot_be_fitted():
    with pytest.raises(MeasureError, match=r"nothing can be fitted.*do not vary"):
        fit(table().assign(samples_seen=1e9))


def test_a_source_of_one_point_stands_beside_one_that_is_fitted():
    found = fit(table()[:7], bootstrap=200)
    assert found.fits.set_index("source")["verdict"].to_dict() == {"a": "scaling", "b": "too-few-points"}
    assert found.fits.set_index("source").loc["b"].isna()[["alpha", "beta", "alpha_low", "r2"]].all()
    assert np.isnan(found.comparisons.iloc[0]["delta_alpha"])
    assert found.comparisons.iloc[0]["verdict"] == "undetermined"


def test_mixed_metrics_are_refused():
    rows = table()
    rows.loc[rows["model"] == "b2", "metric"] = "mean_per_class_recall"
    with pytest.raises(MeasureError, match="mixed metrics on my-birds: b2 has mean_per_class_recall, but not acc1"):
        fit(rows)


def test_a_metric_without_a_default_must_be_named():
    with pytest.raises(UsageError, match=r"my-birds: name the metric to fit with --metric. Metrics there: f1, iou"):
        fit(pd.concat([table().assign(metric="f1"), table().assign(metric="iou")]))
    assert fit(table().assign(metric="f1"), bootstrap=200).fits["metric"].unique() == ["f1"]


def test_a_metric_that_a_data_set_has_asked_for_stands_for_it():
    both = pd.concat([table(), table().assign(metric="acc_worst_region")])
    assert fit(both, bootstrap=200).fits["metric"].unique() == ["acc_worst_region"]
    assert fit(both, metric="acc1", bootstrap=200).fits["metric"].unique() == ["acc1"]


@pytest.mark.parametrize(
    ("value", "reason"),
    [(np.nan, "the value is missing (NaN)"), (1.0, "a value of 1 leaves no error: there is no logarithm")],
)
def test_a_value_without_a_logarithm_is_left_out_and_counted(value, reason):
    rows = table()
    rows.loc[3, "value"] = value
    found = fit(rows, bootstrap=200)
    assert found.card["data"]["left_out"] == {reason: 1}
    assert found.to_json() == fit(rows.drop(index=3), bootstrap=200).to_json()
    with pytest.raises(MeasureError, match=r"no row that matches can be fitted: a value of 1"):
        fit(table().assign(value=1.0))


def test_a_value_of_1_of_known_samples_counts_as_half_a_sample_wrong():
    rows = table().assign(n=499)
    rows.loc[3, "value"] = 1.0
    found = fit(rows, bootstrap=200)
    assert found.laws[0].points.error.min() == pytest.approx(0.5 / 500)
    assert "a value of 1 counts as half a sample wrong of n + 1: 1 of 12 rows" in found.notes
    assert found.card["data"]["left_out"] == {}


def test_rows_that_were_not_measured_are_left_out_and_counted():
    rows = table(n=8).assign(status="ok", error=None)
    rows.loc[0, ["status", "error", "value"]] = "failed", "no checkpoint", np.nan
    rows.loc[1, "status"] = "limited"
    rows = rows.assign(from_scratch_filter=None).astype({"from_scratch_filter": object})
    rows.loc[9, "from_scratch_filter"] = "fine-tuned"
    selection = select(rows, Question())
    assert [len(points.x) for points in selection.points] == [6, 7]
    assert selection.left_out == {
        "failed: no checkpoint": 1,
        "limited: measured on a part of the data set": 1,
        "fine-tuned": 1,
    }
    assert any(note.startswith("3 rows are left out: 1 ") for note in fit(rows, bootstrap=200).notes)


def test_nothing_measured_says_why():
    with pytest.raises(MeasureError, match="no row that matches can be fitted: 12 rows failed"):
        fit(table().assign(status="failed"))


def test_the_same_value_again_is_left_out():
    twice = pd.concat([table(), table()[:2]], ignore_index=True)
    selection = select(twice, Question())
    assert [len(points.x) for points in selection.points] == [6, 6]
    assert selection.left_out == {"the same value of the same checkpoint again": 2}


def test_two_values_of_one_checkpoint_are_refused():
    rows = table().assign(precision="fp32")
    other = rows[:1].assign(precision="bf16", value=lambda t: t["value"] + 0.01)
    with pytest.raises(MeasureError, match=r"\(a0, my-birds, acc1\): 2 different values.*They differ in precision"):
        fit(pd.concat([rows, other], ignore_index=True))


def test_seeds_are_averaged():
    seeds = [table().assign(seed=k, value=lambda t, k=k: t["value"] + 0.001 * k) for k in range(3)]
    selection = select(pd.concat(seeds, ignore_index=True), Question())
    assert [len(points.x) for points in selection.points] == [6, 6]
    assert selection.points[0].error == pytest.approx(1 - table()["value"][:6].to_numpy() - 0.001)
    assert selection.notes[-1] == "36 values of several seeds are averaged to 12, one per checkpoint"


def test_shots_are_laws_of_their_own():
    rows = table().assign(task="linear_probe")
    both = pd.concat([rows.assign(shots=10), rows.assign(shots=None)], ignore_index=True).astype({"shots": "Int64"})
    found = fit(both, bootstrap=200)
    assert found.fits["shots"].fillna(0).tolist() == [10, 10, 0, 0]
    assert len(found.comparisons) == 2


def test_data_sets_by_pattern():
    rows = pd.concat([table(), table().assign(dataset="my-fish"), table().assign(dataset="cars")])
    assert set(fit(rows, datasets=["my-*"], bootstrap=200).fits["dataset"]) == {"my-birds", "my-fish"}


def test_several_scales_make_a_joint_law():
    rng = np.random.default_rng(1)
    rows = table(n=30, noise=0.0).assign(gmacs=lambda t: rng.choice([2.0, 7.4, 20.0, 90.0], len(t)))
    rows["value"] = 1 - 2 * rows["gmacs"] ** -0.1 * rows["samples_seen"] ** -0.06
    found = fit(rows, x="gmacs, samples_seen", bootstrap=200)
    for params in found.fits["params"]:
        assert params == pytest.approx({"alpha_gmacs": -0.1, "alpha_samples_seen": -0.06, "beta": 2.0})
    assert found.fits["x"].tolist() == ["gmacs, samples_seen"] * 2
    assert found.fits["frontier"].tolist() == ["none"] * 2
    assert found.fits["alpha"].isna().all()


def test_hold_out_scores_the_checkpoints_above_the_cut():
    rows = table(noise=0.0)[:6]
    rows.loc[5, "value"] -= 0.02
    cut = float(7.4 * rows["samples_seen"][4])
    found = fit(rows, holdout=cut, bootstrap=200).fits.iloc[0]
    assert found["holdout_mae"] == pytest.approx(2.0)
    for outside in (1e5, 1e20):
        with pytest.raises(UsageError, match=r"no source has checkpoints on both sides .* gmacs_total is from"):
            fit(rows, holdout=outside, bootstrap=200)


def test_published_default_is_the_paper_and_says_so():
    found = fit(task="retrieval", bootstrap=200)
    laws = found.fits
    assert set(laws["dataset"]) == {"mscoco_captions", "flickr30k"}
    assert set(laws["metric"]) == {"image_retrieval_recall@5", "text_retrieval_recall@5"}
    assert laws.groupby("source")["n_models"].unique().map(list).to_dict() == {"CLIP-WIT": [3], "LAION": [29]}
    assert "2212.07143" in found.notes[0]


def test_clipeval_fit_is_this_fit():
    assert clipeval.fit is fit


def test_tables_are_read_from_files_folders_and_names(tmp_path):
    rows = table()
    rows[:6].to_csv(tmp_path / "a.csv", index=False)
    (tmp_path / "out").mkdir()
    rows[6:].to_parquet(tmp_path / "out" / "results.parquet", index=False)
    both = read_tables([str(tmp_path / "a.csv"), str(tmp_path / "out")])
    assert fit(both, bootstrap=200).to_json() == fit(rows, bootstrap=200).to_json()
    assert set(read_tables(["open_clip"])["study"]) == {"open_clip"}
    with pytest.raises(UsageError, match=r"not a published study.*Did you mean 'open_clip'"):
        read_tables(["openclip"])
    with pytest.raises(UsageError, match="no results table here"):
        read_tables([str(tmp_path / "nowhere")])


def test_a_row_of_a_file_is_named_with_the_file(tmp_path):
    rows = table()
    rows.loc[8, "gmacs"] = -7.4
    rows[:6].to_csv(tmp_path / "a.csv", index=False)
    rows[6:].to_csv(tmp_path / "b.csv", index=False)
    with pytest.raises(MeasureError, match=r"b.csv: row 3 \(b2, my-birds, acc1\)"):
        fit(read_tables([str(tmp_path / "a.csv"), str(tmp_path / "b.csv")]))


def test_published_rows_without_a_known_size_are_left_out_and_counted():
    found = fit(read_tables(["open_clip"]), datasets=["imagenet1k"], by="source", bootstrap=200)
    assert any("gmacs_total is not known" in note for note in found.notes)
    assert {"DataComp-1B", "LAION-2B"} <= set(found.fits["source"])


def logit(p):
    return np.log(p / (1 - p))


def shifts(offset=0.3, n=8, noise=0.0):
    """Accuracies with slope 1.1 between logits, source b higher by ``offset`` under the shift."""
    rng = np.random.default_rng(2)
    rows = []
    for source, extra in (("a", 0.0), ("b", offset)):
        for i, accuracy in enumerate(np.linspace(0.3, 0.8, n)):
            under = 1 / (1 + np.exp(-(1.1 * logit(accuracy) - 0.5 + extra + rng.normal(0, noise))))
            base = {"model": f"{source}{i}", "source": source, "samples_seen": 1e9, "task": "zeroshot_classification"}
            rows.append(base | {"dataset": "imagenet1k", "metric": "acc1", "value": accuracy})
            rows.append(base | {"dataset": "imagenetv2", "metric": "acc1", "value": under})
    return pd.DataFrame(rows)


def test_effective_robustness_recovers_planted_lines():
    lines, pairs = effective_robustness(shifts(noise=1e-9), shifts=["imagenetv2"])
    assert lines["slope"].tolist() == pytest.approx([1.1, 1.1])
    pair = pairs.iloc[0]
    assert pair["logit"] == pytest.approx(-0.3)
    assert pair["at"] == pytest.approx(1 / (1 + np.exp(-(logit(0.3) + logit(0.8)) / 2)))
    expected = [1 / (1 + np.exp(-(1.1 * logit(pair["at"]) - 0.5 + extra))) for extra in (0.0, 0.3)]
    assert pair["points"] == pytest.approx(expected[0] - expected[1])


def test_effective_robustness_lines_by_scipy():
    rows = shifts(noise=0.1)
    lines, pairs = effective_robustness(rows, shifts=["imagenetv2"])
    for row in lines.itertuples():
        own = rows[rows["source"] == row.source].pivot(index="model", columns="dataset", values="value")
        line = stats.linregress(logit(own["imagenet1k"]), logit(own["imagenetv2"]))
        half = stats.t.ppf(0.975, 6) * line.stderr
        assert (row.slope, row.slope_low, row.slope_high) == pytest.approx(
            (line.slope, line.slope - half, line.slope + half)
        )
    assert pairs.iloc[0]["p"] < 0.01
    assert pairs.iloc[0]["logit_low"] < -0.3 < pairs.iloc[0]["logit_high"]


def test_effective_robustness_of_the_paper():
    rows = published()
    lines, pairs = effective_robustness(rows[rows["study"] == "cherti2023"])
    assert lines.groupby("source")["n"].unique().map(list).to_dict() == {"CLIP-WIT": [3], "LAION": [29]}
    v2 = lines[(lines["dataset"] == "imagenetv2") & (lines["source"] == "LAION")].iloc[0]
    assert v2["slope_low"] < v2["slope"] < v2["slope_high"]
    assert 0.9 < v2["slope"] < 1.0
    assert len(pairs) == 6
    assert (pairs["p_holm"] >= pairs["p"]).all()


def planted_joint():
    """E = 0.05 + 0.4 G**-0.3 + 100 S**-0.3, for which the optimum has a closed form."""
    rows = []
    for arch, gmacs in (("S", 2.0), ("M", 7.4), ("L", 20.0), ("XL", 90.0), ("XXL", 200.0)):
        for samples in (1e8, 1e9, 1e10, 3e10):
            error = 0.05 + 0.4 * gmacs**-0.3 + 100 * samples**-0.3
            row = {"model": f"{arch}{samples}", "arch": arch, "source": "a", "gmacs": gmacs, "samples_seen": samples}
            rows.append(row | {"dataset": "d", "task": "zeroshot_classification", "metric": "acc1", "value": 1 - error})
    return pd.DataFrame(rows)


def test_compute_optimal_choice_is_that_of_the_closed_form():
    x = "gmacs,samples_seen"
    found = fit(planted_joint(), x=x, law="joint_nd", bootstrap=100)
    budget = 1e11
    table = optimal(found.laws, budget, x)
    best = table[table["kind"] == "optimum"].iloc[0]
    closed_form = (0.4 / 100 * budget**0.3) ** (1 / 0.6)  # of equal exponents: G**0.6 = (a / b) * budget**0.3
    assert best["gmacs"] == pytest.approx(closed_form, rel=0.02)
    assert best["gmacs"] * best["samples_seen"] == pytest.approx(budget)
    assert best["error"] == pytest.approx(0.05 + 0.8 * closed_form**-0.3, rel=1e-4)
    for side in ("flat_low", "flat_high"):
        error = 0.05 + 0.4 * best[side] ** -0.3 + 100 * (budget / best[side]) ** -0.3
        assert error / best["error"] == pytest.approx(1.01, abs=2e-3)
    choices = table[table["kind"] == "architecture"]
    assert choices["arch"].tolist() == ["S", "M", "L", "XL", "XXL"]
    assert (choices["excess"] >= 0).all()
    assert choices["samples_seen"].tolist() == pytest.approx([budget / g for g in (2.0, 7.4, 20.0, 90.0, 200.0)])


def test_compute_optimal_needs_a_joint_law_and_a_budget():
    found = fit(planted_joint(), bootstrap=100)
    with pytest.raises(UsageError, match="--budget needs a joint law of --x gmacs,samples_seen"):
        optimal(found.laws, 1e11, "gmacs_total")
    with pytest.raises(UsageError, match="must be a positive number"):
        optimal(found.laws, 0, "gmacs,samples_seen")


def test_the_joint_law_with_repeats_beats_compute_alone():
    datasets = ["imagenet1k", "mscoco_captions"]
    compute = fit(datasets=datasets, frontier="none", bootstrap=100).fits
    joint = fit(datasets=datasets, law="joint_repeats", x="params,samples_seen,unique_samples", bootstrap=100).fits
    for dataset, metric in (("imagenet1k", "acc1"), ("mscoco_captions", "image_retrieval_recall@5")):
        key = {"dataset": dataset, "metric": metric, "source": "LAION"}
        aicc = [t[np.logical_and.reduce([t[k] == v for k, v in key.items()])]["aicc"].item() for t in (compute, joint)]
        assert aicc[0] - aicc[1] > 20


@pytest.mark.parametrize(
    ("column", "what"),
    [
        ("dataset_fingerprint", "contents of the data set"),
        ("train_fingerprint", "training data"),
        ("prompts_digest", "class names or templates"),
        ("task_version", "versions of the task"),
        ("precision", "precisions"),
        ("split", "splits"),
        ("protocol", "protocols"),
    ],
)
def test_versions_that_are_mixed_are_said(column, what):
    rows = table().assign(**{column: "a" * 64})
    assert not any("mixed" in note for note in fit(rows, bootstrap=200).notes)
    rows.loc[rows.index[0], column] = "b" * 64
    [note] = [note for note in fit(rows, bootstrap=200).notes if "mixed" in note]
    n = rows["model"].nunique()
    cell = f"{rows['dataset'].iloc[0]} · {rows['metric'].iloc[0]}"
    assert (
        note
        == f"{cell}: different {what} are mixed ({column}; checkpoints: {n - 1} with {'a' * 12}, 1 with {'b' * 12})"
    )
    rows[column] = rows[column].where(rows.index != rows.index[0], None)
    assert not any("mixed" in note for note in fit(rows, bootstrap=200).notes), (
        "what is not known is not known to differ"
    )


def test_what_is_mixed_is_in_the_fit_card():
    rows = table().assign(prompts="imagenet", precision="fp32")
    rows.loc[::2, "prompts"] = "plain"
    [said] = fit(rows, bootstrap=200).card["data"]["mixed"]
    assert (
        said
        == "my-birds · acc1: different sets of prompts are mixed (prompts; checkpoints: 6 with imagenet, 6 with plain)"
    )


def test_rows_that_name_too_little_are_counted():
    rows = table()
    rows = pd.concat([rows, rows.head(1).assign(dataset=None), rows.head(1).assign(metric=None)], ignore_index=True)
    assert fit(rows, bootstrap=200).card["data"]["left_out"] == {"no dataset is named": 1, "no metric is named": 1}


def test_compute_beyond_numbers_is_refused(recwarn):
    rows = table()
    rows.loc[rows.index[0], ["gmacs", "samples_seen"]] = 1e200, 1e200
    with pytest.raises(MeasureError, match="is not positive and finite"):
        fit(rows, bootstrap=200)
    assert not recwarn.list

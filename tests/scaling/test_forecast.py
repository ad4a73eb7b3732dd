"""Forecasts: the grammar of a target, what is predicted for it, and what it is scored against."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from clipeval.errors import UsageError
from clipeval.models import zoo
from clipeval.scaling.fit import fit
from clipeval.scaling.frontier import on_frontier
from clipeval.scaling.questions.forecast import parse
from clipeval.scaling.uncertainty.outlook import outlook

EMPTY = pd.DataFrame({"arch": pd.Series([], dtype="string")})


@pytest.mark.parametrize(
    ("word", "samples"),
    [
        ("ViT-L-14:12.8B", 12.8e9),
        ("ViT-L-14:400M", 4e8),
        ("ViT-L-14:5k", 5e3),
        ("ViT-L-14:1_000_000", 1e6),
        ("ViT-L-14:3e9", 3e9),
        ("ViT-L-14:2T", 2e12),
    ],
)
def test_samples_seen(word, samples):
    target = parse(word, EMPTY)
    assert target.sizes["samples_seen"] == pytest.approx(samples)
    assert target.x(("gmacs_total",)) == pytest.approx([samples * zoo.architectures()["ViT-L-14"].gmacs])


def test_several_scales_at_once():
    target = parse("ViT-B-16:2B", EMPTY)
    assert target.x(("params_text", "samples_seen")) == pytest.approx(
        np.array([[zoo.architectures()["ViT-B-16"].params_text, 2e9]])
    )


def test_sizes_come_from_the_table_where_it_has_the_architecture():
    table = pd.DataFrame({"arch": ["ViT-L-14", "ViT-L-14"], "gmacs": [87.73, 87.73]})
    table = table.reindex(columns=["arch", "gmacs", "params", "params_image", "params_text", "gmacs_image"])
    table = table.assign(gmacs_text=np.nan, image_size=np.nan)
    assert parse("ViT-L-14:1B", table).x(("gmacs_total",)) == pytest.approx([87.73e9])


def test_a_name_of_the_literature_is_another_name_of_open_clip():
    assert parse("ViT-G-14:1B", EMPTY).sizes == parse("ViT-bigG-14:1B", EMPTY).sizes


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("ViT-L-14", "expected ARCHITECTURE:SAMPLES_SEEN"),
        ("ViT-L-14:many", "'many' is not a number"),
        ("ViT-L-14:0", "'0' is not a number"),
        ("ViT-L-14:-3B", "'-3B' is not a number"),
        ("ViT-L14:3B", "Did you mean 'ViT-L-14'"),
    ],
)
def test_wrong_targets(word, message):
    with pytest.raises(UsageError, match=message):
        parse(word, EMPTY)


def test_a_law_of_another_column_cannot_be_forecast():
    with pytest.raises(UsageError, match="its unique_samples is not known"):
        parse("ViT-L-14:3B", EMPTY).x(("unique_samples",))


def ladder(**more):
    """Six checkpoints of one source on E = 2 C**-0.1 exactly, C in GMACs."""
    rows = []
    for arch, samples in [(a, s) for a in ("ViT-B-32", "ViT-B-16") for s in (1e8, 1e9, 1e10)]:
        gmacs = {"ViT-B-32": 7.4, "ViT-B-16": 20.57}[arch]
        error = 2 * (gmacs * samples) ** -0.1
        row = {
            "model": f"{arch}-{samples:.0e}",
            "arch": arch,
            "source": "mine",
            "gmacs": gmacs,
            "samples_seen": samples,
        }
        rows.append(row | {"dataset": "d", "task": "zeroshot_classification", "metric": "acc1", "value": 1 - error})
    return pd.DataFrame(rows).assign(**more)


def test_prediction_is_the_law_and_is_marked_far_beyond_the_data():
    found = fit(ladder(), forecasts=["ViT-L-14:1B", "ViT-L-14:1T"], bootstrap=200).forecasts
    gmacs = zoo.architectures()["ViT-L-14"].gmacs
    near, far = found.to_dict("records")
    assert near["gmacs_total"] == pytest.approx(gmacs * 1e9)
    assert near["predicted"] == pytest.approx(1 - 2 * (gmacs * 1e9) ** -0.1, abs=1e-9)
    assert near["decades_beyond"] == 0
    assert near["note"] == ""
    assert far["decades_beyond"] == pytest.approx(np.log10(gmacs * 1e12 / (20.57 * 1e10)))
    assert far["note"].split("; ") == [
        "more than a decade beyond the data",
        "not checked against the past: too few points lie far enough below",
    ]


def test_scored_by_the_nearest_measured_checkpoint():
    found = fit(ladder(), forecasts=["ViT-B-16:1.05B", "ViT-B-16:2B"], bootstrap=200).forecasts
    hit, miss = found.to_dict("records")
    assert hit["measured_by"] == "ViT-B-16-1e+09"
    assert hit["measured"] == pytest.approx(1 - 2 * (20.57e9) ** -0.1)
    assert hit["difference"] == pytest.approx(hit["predicted"] - hit["measured"])
    assert np.isnan(miss["measured"])
    assert miss["measured_by"] == ""


def test_published_checkpoints_score_a_forecast():
    found = fit(task="classification", datasets=["imagenet1k"], forecasts=["ViT-g-14:34B"], bootstrap=200).forecasts
    laion = found[found["source"] == "LAION"].iloc[0]
    assert laion["measured_by"] == "ViT-g-14,laion2b_s34b_b88k"
    assert laion["measured"] == pytest.approx(0.7847)
    assert np.isnan(found[found["source"] == "CLIP-WIT"].iloc[0]["measured"])


def test_two_intervals_that_of_the_law_and_that_of_one_later_model():
    result = fit(
        task="classification", datasets=["imagenet1k"], forecasts=["ViT-g-14:34B", "ViT-bigG-14:39B"], bootstrap=400
    )
    rows = result.forecasts[result.forecasts["source"] == "LAION"]
    (law,) = [law for law in result.laws if law.points.source == "LAION"]
    on = on_frontier("pareto", law.points.x, law.points.error)
    for row in rows.itertuples():
        low, high = law.band(np.array([row.gmacs_total]))
        assert (row.law_low, row.law_high) == pytest.approx((1 - high[0], 1 - low[0]))
        later = outlook(law.points.x[on], law.points.error[on], row.gmacs_total)
        ends = 1 - later.high, 1 - later.low, 1 - later.centre
        assert (row.predicted_low, row.predicted_high, row.expected) == pytest.approx(ends)
        assert row.predicted_low < row.measured < row.predicted_high
        assert row.law_high - row.law_low < row.predicted_high - row.predicted_low
        assert row.past_mae == pytest.approx(100 * later.past_mae)
        assert row.past_n == later.past_n > 1
        assert row.laws.startswith("power 0.9")
    assert any("does not bend more than it has" in note for note in result.notes)
    assert "does not bend more than it has" in result.card["forecasts"]["predicted"]
    assert result.card["forecasts"]["asked"] == ["ViT-g-14:34B", "ViT-bigG-14:39B"]
    axis = result.plot()["imagenet1k-acc1"].axes[0]
    assert axis.get_xlim()[1] > rows["gmacs_total"].max()
    drawn = [
        line.get_ydata() for line in axis.get_lines() if len(line.get_xdata()) == 2 and np.ptp(line.get_xdata()) == 0
    ]
    wide = [100 * (1 - rows["predicted_high"].iloc[0]), 100 * (1 - rows["predicted_low"].iloc[0])]
    assert any(np.allclose(ends, wide) for ends in drawn)


def test_a_law_of_several_scales_has_an_interval_with_scatter_that_is_not_checked():
    rng = np.random.default_rng(0)
    rows = pd.concat([ladder(), ladder(gmacs=90.0), ladder(gmacs=2.0)], ignore_index=True)
    error = 2 * rows["gmacs"] ** -0.1 * rows["samples_seen"] ** -0.1 * np.exp(rng.normal(0, 0.03, len(rows)))
    rows = rows.assign(value=1 - error, model=[f"m{i}" for i in range(len(rows))])
    result = fit(rows, x="gmacs,samples_seen", forecasts=["ViT-L-14:1B"], bootstrap=400)
    row, law = result.forecasts.iloc[0], result.laws[0]
    logs = np.log(1 - row[["law_high", "predicted", "law_low"]].to_numpy(float))
    wider = np.log(1 - row[["predicted_high", "predicted_low"]].to_numpy(float))
    scatter = 1.96 * np.sqrt(law.estimate.rss / (18 - 3))
    assert logs[1] - wider[0] == pytest.approx(np.hypot(logs[1] - logs[0], scatter))
    assert wider[1] - logs[1] == pytest.approx(np.hypot(logs[2] - logs[1], scatter))
    assert "not checked against the past" in row["note"]


def test_a_forecast_without_enough_models_has_no_interval_of_a_model():
    row = fit(ladder()[::2], forecasts=["ViT-L-14:1B"], bootstrap=200).forecasts.iloc[0]
    assert np.isfinite(row["predicted"])
    assert np.isnan([row["predicted_low"], row["predicted_high"], row["expected"]]).all()
    assert "too few models on the frontier" in row["note"]

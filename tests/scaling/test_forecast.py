"""Forecasts: the grammar of a target, what is predicted for it, and what it is scored against."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from clipeval.errors import UsageError
from clipeval.models import zoo
from clipeval.scaling.fit import fit
from clipeval.scaling.questions.forecast import parse

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
    assert far["note"] == "more than a decade beyond the data"


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

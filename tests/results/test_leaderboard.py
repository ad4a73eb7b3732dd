"""One row per checkpoint, one column per data set."""

from __future__ import annotations

import math

import pandas as pd
import pytest

import clipeval
from clipeval.results.schema import to_frame


def row(model, dataset, value, metric="acc1", task="zeroshot_classification", **more):
    return {"model": model, "dataset": dataset, "task": task, "metric": metric, "value": value, "status": "ok"} | more


def test_by_hand():
    """``pets`` counts by its mean per class (the catalogue's main metric), retrieval in both directions; a failed value
    is missing; best is who leads where it was measured."""
    rows = [
        row("a", "imagenet1k", 0.5, arch="X", source="S", samples_seen=2.0, gmacs_total=8.0),
        row("a", "imagenet1k", 0.9, "acc5"),
        row("b", "imagenet1k", 0.6),
        row("c", "imagenet1k", math.nan, status="failed", error="no"),
        row("a", "vtab/pets", 0.1),
        row("a", "vtab/pets", 0.2, "mean_per_class_recall"),
        row("b", "vtab/pets", 0.4, "mean_per_class_recall"),
        row("c", "vtab/pets", 0.3, "mean_per_class_recall", status="limited"),
        *(
            row("a", "mscoco_captions", 0.7, f"{way}_retrieval_recall@5", "zeroshot_retrieval")
            for way in ("image", "text")
        ),
        row("a", "imagenet1k", 0.8, task="linear_probe", shots=10),
        row("a", "imagenet1k", 0.85, task="linear_probe"),
    ]
    board = clipeval.leaderboard(to_frame(rows))
    assert board.index.tolist() == ["b", "a", "c"]  # mean ranks 1, (1/2 + 1/3 + 4) / 6, 2/3
    assert board.columns.tolist() == [
        *("arch", "source", "samples_seen", "gmacs_total"),
        *("imagenet1k zeroshot_classification", "vtab/pets"),
        *("mscoco_captions image_retrieval_recall@5", "mscoco_captions text_retrieval_recall@5"),
        *("imagenet1k linear_probe 10 shots", "imagenet1k linear_probe"),
    ]
    assert board.loc["a"].tolist() == ["X", "S", 2.0, 8.0, 0.5, 0.2, 0.7, 0.7, 0.8, 0.85]
    assert board["vtab/pets"].to_dict() == {"a": 0.2, "b": 0.4, "c": 0.3}
    assert math.isnan(board.loc["c", "imagenet1k zeroshot_classification"])


def test_what_is_better_when_lower_leads_when_lower():
    rows = [row("a", "d", 3.0, "loss", higher_is_better=False), row("b", "d", 2.0, "loss", higher_is_better=False)]
    assert clipeval.leaderboard(to_frame(rows)).index.tolist() == ["b", "a"]


def test_choices_and_their_errors():
    rows = to_frame([row("a", "d", 0.1), row("a", "e", 0.2), row("a", "e", 0.3, "acc5"), row("a", "d", 0.4, "acc5")])
    assert clipeval.leaderboard(rows, dataset="e", metric="acc5")["e"].tolist() == [0.3]
    assert list(clipeval.leaderboard(rows, task="classification"))[4:] == ["d", "e"]
    with pytest.raises(clipeval.UsageError, match="no dataset 'imagenet'"):
        clipeval.leaderboard(rows, dataset="imagenet")
    with pytest.raises(clipeval.UsageError, match="'clasification' is not a task"):
        clipeval.leaderboard(rows, task="clasification")
    with pytest.raises(clipeval.MeasureError, match="has a value"):
        clipeval.leaderboard(to_frame([row("a", "d", math.nan, status="failed")]))


def test_every_value_of_a_study_is_in_its_place():
    """By pandas' own pivot of the rows of one data set."""
    table = clipeval.read_results("open_clip")
    board = clipeval.leaderboard(table, dataset="imagenet1k", full_names=True)
    of_set = table[(table["dataset"] == "imagenet1k") & (table["metric"] == "acc1") & table["value"].notna()]
    wanted = of_set.drop_duplicates("model").set_index("model")["value"]
    pd.testing.assert_series_equal(
        board["imagenet1k"].dropna().sort_index(), wanted.sort_index(), check_names=False, check_index_type=False
    )
    assert board["imagenet1k"].is_monotonic_decreasing
    readable = clipeval.leaderboard(table, dataset="imagenet1k").index
    assert readable.is_unique
    assert readable[0] == "ViT-H-14-378 · DFN-5B · 44B"

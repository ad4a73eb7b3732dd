"""Suite averages by hand, and what happens when a member is missing."""

from __future__ import annotations

import math

import pytest

from clipeval.config import Config
from clipeval.results.suites import SuiteRequest, requests, suite_rows

SUITE = SuiteRequest("pair", "acc1", (("a", "acc1"), ("b", "acc1")), ("zeroshot_classification",))


def row(dataset, value, metric="acc1", model="m", status="ok", task="zeroshot_classification", **more):
    return {
        "model": model,
        "dataset": dataset,
        "task": task,
        "metric": metric,
        "value": value,
        "ci_low": value - 0.03,
        "ci_high": value + 0.03,
        "status": status,
        **more,
    }


def test_mean_and_interval_by_hand():
    [average] = suite_rows(SUITE, [row("a", 0.5), row("b", 0.7), row("a", 0.9, metric="acc5")])
    assert average["value"] == pytest.approx(0.6, abs=1e-15)
    # two half widths of 0.03: sqrt(2) * 0.03 / 2
    assert average["ci_high"] - average["value"] == pytest.approx(0.03 / math.sqrt(2), abs=1e-12)
    assert (average["dataset"], average["metric"], average["n"], average["status"]) == ("pair", "acc1", 2, "ok")


def test_a_hole_gives_an_error_row_that_names_it():
    [average] = suite_rows(SUITE, [row("a", 0.5), row("b", math.nan, status="failed")])
    assert average["status"] == "error"
    assert math.isnan(average["value"])
    assert average["error"] == "1 of 2 missing: b"


def test_checkpoints_limits_and_shots_are_kept_apart():
    rows = [row("a", 0.5), row("b", 0.7), row("a", 0.1, model="other"), row("a", 0.2, limit=10, status="limited")]
    averages = suite_rows(SUITE, rows)
    assert [(r["model"], r["status"]) for r in averages] == [("m", "ok"), ("other", "error"), ("m", "error")]


def test_limited_members_give_a_limited_average():
    rows = [row(name, 0.5, limit=10, status="limited") for name in "ab"]
    assert [r["status"] for r in suite_rows(SUITE, rows)] == ["limited"]


def test_mixed_tasks_and_compound_metrics():
    suite = SuiteRequest(
        "mixed",
        "main_metric",
        (("a", "acc1"), ("r", "mean_recall@1")),
        ("zeroshot_classification", "zeroshot_retrieval"),
    )
    rows = [
        row("a", 0.5),
        row("r", 0.2, "image_retrieval_recall@1", task="zeroshot_retrieval"),
        row("r", 0.4, "text_retrieval_recall@1", task="zeroshot_retrieval"),
        row("a", 0.99, task="linear_probe"),
    ]
    [average] = suite_rows(suite, rows)
    assert average["value"] == pytest.approx(0.4)
    assert average["task"] == "zeroshot"


def catalogue(**members):
    """A configuration with one suite of all data sets, by their main metrics."""
    entries = {name: {"spec": "folder:x", "main_metric": metric} for name, metric in members.items()}
    return Config.model_validate({"datasets": entries, "suites": {"s": {"members": list(entries)}}})


ALL = ["association", "finetune", "image_caption_selection", "linear_probe", "zeroshot_classification"]


@pytest.mark.parametrize(
    ("members", "metric", "tasks"),
    [
        ({"a": "acc1", "b": "acc1"}, "acc1", [("finetune",), ("linear_probe",), ("zeroshot_classification",)]),
        ({"a": "acc1", "b": "acc_worst_region"}, "main_metric", [("zeroshot_classification",)]),
        ({"a": "text_acc"}, "text_acc", [("image_caption_selection",)]),
        ({"a": "mean_recall@1", "b": "image_retrieval_recall@5"}, "main_metric", [("zeroshot_retrieval",)]),
        ({"a": "jaccard_score_10-12"}, "jaccard_score_10-12", [("association",)]),
        ({"a": "acc1", "b": "jaccard_score_10-12"}, "main_metric", [("association", "image_caption_selection",
         "zeroshot_classification", "zeroshot_retrieval")]),
        ({"a": "acc1", "b": "sharpness"}, "main_metric", [("zeroshot_classification",)]),
    ],
)  # fmt: skip
def test_the_tasks_that_give_the_metrics_are_averaged(members, metric, tasks):
    found = list(requests(catalogue(**members), ["s"], [*ALL, "zeroshot_retrieval"], ["finetune", "linear_probe"]))
    assert [(request.metric, request.tasks) for request in found] == [(metric, of) for of in tasks]


def test_what_no_task_here_gives_may_come_of_another_packages_task():
    found = list(requests(catalogue(a="sharpness"), ["s"], ["linear_probe", "my_task", "zeroshot_classification"]))
    assert [request.tasks for request in found] == [("my_task",), ("zeroshot_classification",)]

"""One line per metric and task: its titles, and that nothing which clipeval measures or averages lacks one."""

from __future__ import annotations

import ast

import pytest
from imports import ROOT, modules

from clipeval import config, vocabulary
from clipeval.results.suites import COMPOUND_METRICS
from clipeval.tasks import TASKS


@pytest.mark.parametrize(
    ("name", "title", "heading", "error", "way"),
    [
        ("acc1", "top-1", "Top-1", "Top-1 error (%)", ""),
        ("mean_average_precision", "mAP", "mAP", "100 − mAP (%)", ""),
        (
            *("image_retrieval_recall@5", "text→image R@5", "Text→image R@5", "100 − text→image R@5 (%)"),
            "text→image retrieval",
        ),
        (
            *("text_retrieval_recall@10", "image→text R@10", "Image→text R@10", "100 − image→text R@10 (%)"),
            "image→text retrieval",
        ),
        (
            "image_retrieval_recall@7",
            "text→image R@7",
            "Text→image R@7",
            "100 − text→image R@7 (%)",
            "text→image retrieval",
        ),
        ("my_metric", "my_metric", "my_metric", "100 − my_metric (%)", ""),
        ("", "", "", "100 −  (%)", ""),
    ],
)
def test_titles(name, title, heading, error, way):
    metric = vocabulary.metric(name)
    assert (metric.title, metric.heading, metric.error, metric.way) == (title, heading, error, way)


@pytest.mark.parametrize(
    ("name", "share"),
    [
        *((name, True) for name in ("acc1", "text_acc", "acc_worst_region", "jaccard_score_5-6", "F1-macro_all")),
        *((name, True) for name in ("image_retrieval_recall@100", "mean_recall@1", "main_metric")),
        *((name, False) for name in ("fid", "loss", "xacc1", "")),
    ],
)
def test_shares(name, share):
    assert vocabulary.metric(name).share is share


def test_everything_that_is_configured_has_a_line():
    found = config.load(None)
    metrics = {entry.main_metric for entry in found.datasets.values()} - {None}
    metrics |= {metric for suite in found.suites.values() for metric in suite.metric} | set(COMPOUND_METRICS)
    assert all(vocabulary.metric(name).share for name in metrics)
    assert {name for task in vocabulary.TASKS.values() for name in task.main} <= set(vocabulary.METRICS)
    assert set(TASKS) <= set(vocabulary.TASKS)
    assert set(vocabulary.DATASETS) <= {*found.datasets, *found.suites}


def test_order():
    shown = sorted(
        ["zz", "text_retrieval_recall@1", "acc5", "acc1", "image_retrieval_recall@1"], key=vocabulary.metric_place
    )
    assert shown == ["acc1", "acc5", "image_retrieval_recall@1", "text_retrieval_recall@1", "zz"]
    assert sorted(["b", "linear_probe", "a", "zeroshot"], key=vocabulary.task_place) == [
        *("zeroshot", "linear_probe", "a", "b")
    ]


def test_titles_stand_nowhere_else():
    """Outside the vocabulary no text of the code is a metric's title."""
    titles = {m.title for m in vocabulary.METRICS.values()} | {m.heading for m in vocabulary.METRICS.values()}
    for name, path in modules().items():
        if name != "clipeval.vocabulary":
            texts = {
                node.value for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Constant)
            }
            assert not texts & titles, path.relative_to(ROOT)

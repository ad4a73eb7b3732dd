"""Which value stands for a task on a data set in the report."""

from __future__ import annotations

import pytest

from clipeval.config import Config
from clipeval.results.suites import main_metrics

ACCURACIES = ["acc1", "acc5", "mean_per_class_recall"]
RECALLS = [f"{found}_retrieval_recall@{k}" for found in ("image", "text") for k in (1, 5, 10)]
AT_5 = ["image_retrieval_recall@5", "text_retrieval_recall@5"]


@pytest.mark.parametrize(
    ("task", "own", "there", "found"),
    [
        ("zeroshot_classification", None, ACCURACIES, ["acc1"]),
        ("zeroshot_classification", "mean_per_class_recall", ACCURACIES, ["mean_per_class_recall"]),
        ("linear_probe", "mean_per_class_recall", ACCURACIES, ["mean_per_class_recall"]),
        ("zeroshot_classification", "acc_worst_region", [*ACCURACIES, "acc_worst_region"], ["acc_worst_region"]),
        ("zeroshot_classification", "acc_worst_region", ACCURACIES, ["acc1"]),
        ("zeroshot_classification", None, ["toxicity_crime_avg", "acc_race_wg", "acc_race_avg"], ["acc_race_avg"]),
        ("zeroshot_classification", "sharpness", [*ACCURACIES, "sharpness"], ["sharpness"]),
        ("zeroshot_retrieval", "image_retrieval_recall@5", RECALLS, AT_5),
        ("zeroshot_retrieval", "acc1", RECALLS, AT_5),
        ("zeroshot_retrieval", "mean_recall@1", RECALLS, ["image_retrieval_recall@1", "text_retrieval_recall@1"]),
        ("zeroshot_retrieval", "mean_recall@1", ["mean_recall@1"], ["mean_recall@1"]),
        ("association", None, ["avg_jaccard_score", "jaccard_score_10-12"], ["jaccard_score_10-12"]),
        ("my_task", "acc1", ["b", "a"], ["a"]),
        ("zeroshot_classification", None, [], []),
    ],
)
def test_what_stands_for_a_data_set(task, own, there, found):
    config = Config.model_validate({"datasets": {"set": {"spec": "folder:x", "main_metric": own}}})
    assert main_metrics(task, "set", there, config) == found

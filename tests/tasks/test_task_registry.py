import subprocess
import sys

import pytest

from clipeval.errors import UsageError
from clipeval.tasks import TASKS, asked_for, canonical_name, load_task


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("classification", "zeroshot_classification"),
        ("retrieval", "zeroshot_retrieval"),
        ("probe", "linear_probe"),
        ("linear_probe", "linear_probe"),
        ("image_caption_selection", "image_caption_selection"),
    ],
)
def test_canonical_name(word, name):
    assert canonical_name(word) == name


def test_unknown_task_is_answered_with_a_suggestion_and_the_list():
    with pytest.raises(UsageError, match=r"'retreival' is not a task. Did you mean 'retrieval'\? Tasks: zeroshot_cl"):
        canonical_name("retreival")
    with pytest.raises(UsageError, match=r"'' is not a task\."):
        canonical_name("")


@pytest.mark.parametrize("name", TASKS)
def test_every_task_has_its_functions_and_known_needs(name):
    spec = TASKS[name]
    assert spec.name == name
    assert set(spec.needs) <= {"labels", "prompts", "captions", "choices", "cues", "train"}
    assert callable(load_task(spec).run)
    assert callable(load_task(spec).texts)
    assert spec.main_metric in spec.metrics
    assert len(set(spec.metrics)) == len(spec.metrics)


def test_what_a_main_metric_asks_for():
    asked = {
        (name, metric): asked_for(TASKS[name], metric)
        for name in ("zeroshot_classification", "linear_probe", "association")
        for metric in (None, "acc1", "acc_wg", "F1-macro_all", "jaccard_score_10-12", "mean_recall@1", "nobody_knows")
    }
    assert {pair: found for pair, found in asked.items() if found} == {
        ("zeroshot_classification", "acc_wg"): "acc_wg",
        ("zeroshot_classification", "F1-macro_all"): "F1-macro_all",
    }


def test_loading_every_task_imports_nothing_heavy():
    code = (
        "import sys; from clipeval.tasks import TASKS, load_task\n"
        "for spec in TASKS.values(): load_task(spec)\n"
        "print([m for m in ('torch', 'open_clip', 'faiss', 'sklearn', 'scipy', 'datasets') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"

import subprocess
import sys

import pytest

from clipeval.errors import UsageError
from clipeval.tasks import TASKS, canonical_name, load_task


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


def test_loading_every_task_imports_nothing_heavy():
    code = (
        "import sys; from clipeval.tasks import TASKS, load_task\n"
        "for spec in TASKS.values(): load_task(spec)\n"
        "print([m for m in ('torch', 'open_clip', 'faiss', 'sklearn', 'scipy', 'datasets') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"

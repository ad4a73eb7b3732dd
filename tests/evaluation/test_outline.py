"""What a run says first."""

from __future__ import annotations

import pytest

from clipeval import __version__
from clipeval.config import packaged
from clipeval.errors import UsageError
from clipeval.evaluation.outline import outline

MODEL = "ViT-B-32,laion2b_s34b_b79k"
START = f"clipeval {__version__} · "


@pytest.mark.parametrize(
    ("models", "sets", "tasks", "shots", "says"),
    [
        ([MODEL], ["digits"], [], None, "1 checkpoint x 1 data set"),
        ([MODEL, MODEL], ["digits", "imagenet", "imagenet1k"], [], None, "1 checkpoint x 2 data sets"),
        (
            [MODEL, "ViT-L-14,datacomp_xl_s13b_b90k"],
            ["vtab"],
            ["probe", "knn", "linear_probe"],
            None,
            "2 checkpoints x 19 data sets x 2 tasks = 76 cells",
        ),
        # 1 zero-shot; 3 draws of 5 and of 10 images per class, and all of them
        (
            [MODEL],
            ["digits"],
            ["classification", "probe"],
            [5, 10, None],
            "1 checkpoint x 1 data set x 8 measurements of 2 tasks = 8 cells",
        ),
    ],
)
def test_first_line(models, sets, tasks, shots, says):
    assert outline(packaged(), models, sets, tasks, shots) == START + says


def test_nothing_is_done_where_nothing_was_measured():
    assert outline(packaged(), [MODEL], ["digits"], ["knn"], is_new=True).endswith(" = 1 cell, 0 done")


def test_without_a_model_there_is_no_line_but_an_error_of_the_run():
    assert outline(packaged(), [], ["digits"], []) == outline(packaged(), [MODEL], [], []) == ""


def test_wrong_words_are_refused_at_once():
    with pytest.raises(UsageError, match="Did you mean 'imagenet1k'"):
        outline(packaged(), [MODEL], ["imagenet1kk"], [])
    with pytest.raises(UsageError, match="is not a task"):
        outline(packaged(), [MODEL], ["digits"], ["prob"])

"""Which rule decides, and what is said of wrong ones."""

from __future__ import annotations

import pytest

from clipeval import config
from clipeval.checks.rules import TERMS, Rules
from clipeval.config import RuleEntry
from clipeval.errors import UsageError


def rules(tmp_path, text):
    path = tmp_path / "rules.yaml"
    path.write_text(text)
    return Rules(config.load(path))


def test_without_rules():
    terms = Rules(config.packaged()).terms("d", "t", "m")
    assert (terms.min, terms.max_drop, terms.alpha, terms.complete, terms.same_version, terms.on_trend) == (
        *(None, 1.0, 0.05),
        *(True, True, None),
    )
    assert set(TERMS) | {"dataset", "task", "metric", "suite"} == set(RuleEntry.model_fields)


def test_the_first_rule_that_matches_and_says_so_decides_each_key(tmp_path):
    found = rules(
        tmp_path,
        """
        rules:
        - {dataset: imagenet*, metric: acc1, max_drop: 0.5}
        - {dataset: imagenet1k, max_drop: 2, min: 0.6}
        - {task: retrieval, max_drop: null}
        - {task: zeroshot_*, max_drop: 3, alpha: 0.01}
        """,
    )
    both = found.terms("imagenet1k", "zeroshot_classification", "acc1")
    assert (both.max_drop, both.min, both.alpha) == (0.5, 0.6, 0.01)
    assert found.terms("imagenet1k", "zeroshot_classification", "acc5").max_drop == 2
    assert found.terms("flickr30k", "zeroshot_retrieval", "image_retrieval_recall@5").max_drop is None
    assert found.terms("digits", "linear_probe", "acc1").max_drop == 1
    assert list(found.without_a_cell()) == []


def test_suites_match_their_data_sets_and_their_average(tmp_path):
    found = rules(tmp_path, "suites: {mine: [a, b]}\nrules: [{suite: 'm*', max_drop: 7}, {suite: vtab+, max_drop: 8}]")
    assert [found.terms(name, "t", "m").max_drop for name in ("a", "b", "mine", "c", "vtab/pets")] == [7, 7, 7, 1, 8]


def test_rules_that_match_nothing_are_named(tmp_path):
    found = rules(tmp_path, "rules: [{dataset: imagnet1k, min: 0.6}]")
    found.terms("imagenet1k", "t", "m")
    assert list(found.without_a_cell()) == ["rules[0] (dataset: imagnet1k, min: 0.6) matches no cell"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[{max_drp: 1}]", r"rules.yaml: rules\[0\].max_drp: unknown key. Did you mean 'max_drop'\?"),
        ("[{}, {max_drop: one point}]", r"rules\[1\].max_drop: expected a number \(found 'one point'\)"),
        ("[{max_drop: -1}]", r"rules\[0\].max_drop: input should be greater than or equal to 0"),
        ("[{max_drop: .inf}]", r"rules\[0\].max_drop: input should be a finite number"),
        ("[{alpha: 5}]", r"rules\[0\].alpha: input should be less than 1"),
        ("[{alpha: true}]", r"rules\[0\].alpha: expected a number"),
        ("[{min: '60%'}]", r"rules\[0\].min: expected a number"),
        ("[{complete: maybe}]", r"rules\[0\].complete: expected true or false"),
        ("[{on_trend: 3}]", r"rules\[0\].on_trend: expected text \(found 3\)"),
        ("[{dataset: [a, b]}]", r"rules\[0\].dataset: expected text"),
        ("{max_drop: 1}", r"rules: expected a list"),
        ("[max_drop]", r"rules\[0\]: "),
        ("[{suite: vtabb}]", r"rules.yaml: rules\[0\].suite: 'vtabb' is not a suite. Did you mean 'vtab'\?"),
    ],
)
def test_wrong_rules_name_the_path_in_the_file(tmp_path, text, message):
    with pytest.raises(UsageError, match=message):
        rules(tmp_path, f"rules: {text}")

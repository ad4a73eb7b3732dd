"""Each format to the letter, and with names that mean harm."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from xml.etree import ElementTree

import junitparser
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from scipy.stats import norm

from clipeval.checks import emit
from clipeval.checks.drops import Drop
from clipeval.checks.result import CheckedCell, CheckResult
from clipeval.checks.verdicts import Finding
from clipeval.errors import StoreError
from clipeval.plain import printable
from clipeval.stats.paired import Paired

NAN = float("nan")


def cell(verdict, reason="because", model="new", baseline_model="old", dataset="d", current=0.5, rule="", **more):
    findings = (Finding(rule or "max_drop", verdict, reason),)
    values = {"shots": None, "seed": None, "baseline": 0.625, "current": current, "findings": findings, **more}
    return CheckedCell(model, baseline_model, dataset, "zeroshot_classification", "acc1", **values)


def result(*cells, notes=("a note",)):
    return CheckResult(cells, notes, "now", "before", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))


# of 8 samples two were lost: 2 n q^2 - (2 - 14 M) q = 0 has the root 0.11625, the variance is 8 (2 q + M (1 - M))
TWO_LOST = Paired(0.25, "exact McNemar", 2, 0, 8, np.zeros, np.array([1, 1, 0, 0, 0, 0, 0, 0]))
DROP = Drop(TWO_LOST, allowed=1.0, alpha=0.05, p_holm=0.25, p_beyond_holm=0.125)
MIXED = result(
    cell("fail", drop=DROP),
    cell("not-comparable", "split val here, test in the baseline", dataset="e", rule="same_samples"),
    cell("cannot-tell", "missing: there is no such row", dataset="g", current=NAN, rule="complete"),
    cell("pass", "no drop", model="old", shots=5, seed=1),
)
HOSTILE = "<script>alert(1)</script>|[x](javascript:y) `a` ::error::\n\x1b[31m\x00%0A, \ud800 & ]]> [red]"


def test_text():
    lines = [line.strip("─ ") for line in emit.text(MIXED, width=180).splitlines() if line.strip("─ ")]
    assert [re.split(r"\s{3,}", line) for line in lines] == [
        ["verdict", "checkpoint", "data set · metric", "baseline", "current", "change", "why"],
        ["fail", "new (baseline: old)", "d · top-1", "62.50", "50.00", "-12.50", "because"],
        [
            *("not-comparable", "new (baseline: old)", "e · top-1", "62.50", "50.00", "-12.50"),
            "split val here, test in the baseline",
        ],
        [
            *("cannot-tell", "new (baseline: old)", "g · top-1", "62.50", "–", "–"),
            "missing: there is no such row",
        ],
        ["pass", "old", "d · 5 shots (seed 1) · top-1", "62.50", "50.00", "-12.50", "no drop"],
        ["a note"],
        ["check FAILED: 1 fail, 1 not-comparable, 1 cannot-tell, 1 pass (4 cells, now against before)"],
    ]


def test_one_checkpoint_is_named_once():
    lines = emit.text(result(cell("fail"), cell("pass"))).splitlines()
    assert lines[0] == "new (baseline: old)"
    assert " ".join(lines[1].split()) == "verdict data set · metric baseline current change why"
    assert sum("new" in line for line in lines) == 1


def test_of_very_many_cells_those_that_pass_are_counted():
    many = [cell("pass", dataset=f"d{number}") for number in range(1_000)]
    assert "d999" in emit.text(result(*many))
    said = emit.text(result(cell("fail", dataset="worse"), cell("cannot-tell", dataset="odd"), *many))
    assert "worse" in said
    assert "odd" in said
    assert "d999" not in said
    assert "1,000 cells that pass are not listed" in said
    assert "1 fail, 1 cannot-tell, 1000 pass (1002 cells" in said


def test_summary_never_calls_cannot_tell_a_pass():
    assert result(cell("cannot-tell")).summary.startswith("check NOT DECIDED: 1 cannot-tell (")
    assert result(cell("pass")).summary.startswith("check passed: 1 pass (")
    assert result().summary.startswith("check NOT DECIDED: nothing to check")
    assert [
        r.exit_code for r in (MIXED, result(cell("cannot-tell"), cell("pass")), result(cell("pass")), result())
    ] == [
        *(1, 3),
        *(0, 3),
    ]


def test_json():
    document = json.loads(emit.as_json(MIXED))
    assert list(document) == [
        *("verdict", "exit_code", "undecided", "counts", "current", "baseline", "notes", "cells", "suites"),
    ]
    assert document["counts"] == {"fail": 1, "not-comparable": 1, "cannot-tell": 1, "pass": 1}
    assert (document["verdict"], document["exit_code"], document["undecided"]) == ("fail", 1, "fail")
    assert document["suites"] == []
    first = document["cells"][0]
    numbers = {name: first.pop(name) for name in ("drop_low", "drop_high", "p_beyond", "pass_chance")}
    assert first == {
        "model": "new",
        "baseline_model": "old",
        "dataset": "d",
        "task": "zeroshot_classification",
        "metric": "acc1",
        "shots": None,
        "seed": None,
        "verdict": "fail",
        "baseline": 0.625,
        "current": 0.5,
        "change": -12.5,
        "p": 0.25,
        "p_holm": 0.25,
        "test": "exact McNemar",
        "reason": "because",
        "findings": [{"rule": "max_drop", "verdict": "fail", "reason": "because"}],
        "allowed": 1.0,
        "p_beyond_holm": 0.125,
        "outcomes": 8,
        "outcomes_needed": 21410,  # 8.563847 * 2 / 8 / .0001 = 21409.6
        "suspect": False,
        "members": [],
        "decides": True,
    }
    z = (2 - 0.08) / (8 * (2 * 0.11625 + 0.0099)) ** 0.5
    assert numbers["p_beyond"] == pytest.approx(norm.sf(z), rel=1e-6)
    assert numbers["pass_chance"] == pytest.approx(norm.cdf(0.01 / (2 / 64) ** 0.5 - 1.644854), rel=1e-5)
    assert numbers["drop_low"] < 25 < numbers["drop_high"] < 100
    missing = document["cells"][2]
    assert [missing[name] for name in ("current", "p", "drop_high", "outcomes", "suspect")] == [*[None] * 4, False]


def mean(verdict, **more):
    return cell(verdict, dataset="mean of 2 data sets", members=("d", "e"), **more)


def test_a_mean_decides_for_its_cells():
    """Of what is undecided by itself nothing passes, and nothing stops."""
    parts = [cell("cannot-tell", decides=False), cell("pass", dataset="e")]
    for verdict, code, word in (("pass", 0, "passed"), ("cannot-tell", 3, "NOT DECIDED"), ("fail", 1, "FAILED")):
        found = CheckResult(parts, means=[mean(verdict)])
        assert (found.exit_code, found.verdict) == (code, verdict)
        assert found.summary.startswith(f"check {word}: 1 cannot-tell, 1 pass (2 cells")
        assert found.summary.endswith(f"; means: 1 {verdict}")
        assert json.loads(emit.as_json(found))["suites"][0]["members"] == ["d", "e"]
        first = emit.text(found, 180).splitlines()[3]
        assert first.split()[0] == verdict
        assert "mean of 2 data sets" in first
    assert emit.github(CheckResult(parts, means=[mean("pass")])).startswith("check passed: ")
    assert emit.github(CheckResult(parts, means=[mean("cannot-tell")])).count("::warning") == 1


def test_a_warning_stops_nothing_and_is_no_pass():
    undecided = CheckResult([cell("cannot-tell")], undecided="warn")
    assert undecided.exit_code == 0
    assert "::warning title=clipeval%3A cannot-tell::" in emit.github(undecided)
    assert CheckResult([cell("cannot-tell", rule="complete")], undecided="warn").exit_code == 3


def test_junit_of_what_need_not_be_decided():
    parts = [cell("cannot-tell", decides=False), cell("cannot-tell", dataset="e")]
    for undecided, kinds in (("fail", ["error", "skipped"]), ("warn", ["skipped", "skipped"])):
        [suite] = ElementTree.fromstring(emit.junit(CheckResult(parts, undecided=undecided)))
        assert sorted(child.tag for case in suite.iter("testcase") for child in case) == kinds
        assert (suite.get("errors"), suite.get("skipped")) == (str(kinds.count("error")), str(kinds.count("skipped")))


@pytest.mark.parametrize("width", [80, 120])
def test_in_narrow_terminals_the_reason_is_below(width):
    shown = emit.text(result(cell("cannot-tell", "no loss shown; could be up to 2.31 points")), width)
    assert max(map(len, shown.splitlines()[:-3])) <= width
    lines = [" ".join(line.split()) for line in shown.splitlines()]
    assert "no loss shown; could be up to 2.31" in " ".join(lines)
    assert any("62.50 50.00 -12.50" in line for line in lines)


def test_junit():
    assert emit.junit(result(cell("fail", model="old"), cell("pass", "no drop"))) == (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        "<testsuites>\n"
        '  <testsuite name="clipeval check" package="clipeval" id="0" hostname="localhost" '
        'timestamp="2026-01-02T03:04:05" tests="2" failures="1" errors="0" skipped="0" time="0">\n'
        "    <properties />\n"
        '    <testcase classname="old" name="d · zeroshot_classification · acc1" time="0">\n'
        '      <failure type="fail" message="because">baseline 62.50, current 50.00, change -12.50 points\n'
        "because</failure>\n"
        "    </testcase>\n"
        '    <testcase classname="new (baseline: old)" name="d · zeroshot_classification · acc1" time="0" />\n'
        "    <system-out>check FAILED: 1 fail, 1 pass (2 cells, now against before); a note</system-out>\n"
        "    <system-err />\n"
        "  </testsuite>\n"
        "</testsuites>\n"
    )


def test_junit_has_what_its_schema_requires():
    """Attributes and order of elements are those of the XSD that most readers follow (windyroad/JUnit-Schema).
    What could not be judged is an error, so that no reader counts it as passed."""
    root = ElementTree.fromstring(emit.junit(MIXED))
    [suite] = root
    assert set(suite.attrib) == {
        *("name", "package", "id", "hostname", "timestamp"),
        *("tests", "failures", "errors", "skipped", "time"),
    }
    assert [child.tag for child in suite] == ["properties", *["testcase"] * 4, "system-out", "system-err"]
    assert all(set(case.attrib) == {"classname", "name", "time"} for case in suite.iter("testcase"))
    found = [[(child.tag, child.get("type")) for child in case] for case in suite.iter("testcase")]
    assert found == [[("failure", "fail")], [("error", "not-comparable")], [("error", "cannot-tell")], []]
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("4", "1", "2")


def test_junit_reads_back_with_another_program():
    [suite] = junitparser.JUnitXml.fromstring(emit.junit(MIXED).encode())
    assert (suite.tests, suite.failures, suite.errors, suite.skipped) == (4, 1, 2, 0)
    kinds = [[type(found).__name__ for found in case.result] for case in suite]
    assert kinds == [["Failure"], ["Error"], ["Error"], []]
    suite.update_statistics()
    assert (suite.tests, suite.failures, suite.errors, suite.skipped) == (4, 1, 2, 0)


def test_junit_with_hostile_names_reads_back():
    document = emit.junit(result(cell("fail", HOSTILE, model=HOSTILE, dataset=HOSTILE), notes=(HOSTILE,)))
    [case] = ElementTree.fromstring(document.encode()).iter("testcase")
    shown = HOSTILE.replace("\n", "\\n").replace("\x1b", "\\x1b").replace("\x00", "\\x00").replace("\ud800", "\\ud800")
    assert case.get("classname") == f"{shown} (baseline: old)"
    assert case[0].get("message") == shown


def test_text_with_hostile_names_has_no_control_characters_and_no_markup():
    document = emit.text(result(cell("fail", HOSTILE, model=HOSTILE)), width=400)
    assert "\x1b" not in document
    assert "\x00" not in document
    assert "[red]" in document


def test_annotations():
    assert emit.github(MIXED) == (
        "::error title=clipeval%3A fail::new (baseline: old): d · top-1: because\n"
        "::warning title=clipeval%3A not-comparable::new (baseline: old): e · top-1: "
        "split val here, test in the baseline\n"
        "::warning title=clipeval%3A cannot-tell::new (baseline: old): g · top-1: "
        "missing: there is no such row\n"
        "check FAILED: 1 fail, 1 not-comparable, 1 cannot-tell, 1 pass (4 cells, now against before)\n"
    )


def test_at_most_ten_annotations_and_none_is_injected():
    many = emit.github(result(*[cell("fail", HOSTILE, model=HOSTILE)] * 23)).splitlines()
    assert sum(line.startswith("::") for line in many) == 10
    assert "13 more are in the job summary" in many
    assert len(many) == 12
    assert all("%250A" in line for line in many[:10]), "a literal %0A stays one"


def test_markdown_table():
    table = emit.markdown(result(cell("fail", "drop"), notes=("note|1",)))
    assert table.splitlines() == [
        "### check FAILED: 1 fail (1 cells, now against before)",
        "",
        "**new (baseline: old)**",
        "",
        "| verdict | data set · metric | baseline | current | change | why |",
        "|---|---|--:|--:|--:|---|",
        "| fail | d · top-1 | 62.50 | 50.00 | -12.50 | drop |",
        "",
        "- note&#124;1",
    ]


def test_markdown_with_hostile_names_is_text():
    lines = emit.markdown(result(cell("fail", HOSTILE, model=HOSTILE, dataset=HOSTILE))).splitlines()
    assert lines[6].count("|") == 7
    for line in (lines[2], lines[6]):
        assert not re.search(r"<(?!!-- -->)|`|\]\(", line)


def test_the_summary_fits_githubs_limit():
    table = emit.markdown(result(*[cell("fail", "x" * 1000)] * 2000))
    assert len(table.encode()) < 1024**2
    assert "more cells do not fit here" in table


def test_writing(tmp_path, monkeypatch, capsys):
    summary = tmp_path / "summary.md"
    summary.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    emit.write(MIXED, "github", None)
    assert summary.read_text() == "before\n" + emit.markdown(MIXED)
    assert capsys.readouterr().out == emit.github(MIXED)
    emit.write(MIXED, "junit", tmp_path / "new" / "check.xml")
    assert (tmp_path / "new" / "check.xml").read_text() == emit.junit(MIXED)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == MIXED.summary + "\n"
    emit.write(MIXED, "json", None)
    assert json.loads(capsys.readouterr().out)["exit_code"] == 1
    monkeypatch.delenv("GITHUB_STEP_SUMMARY")
    emit.write(MIXED, "github", None)
    assert "GITHUB_STEP_SUMMARY is not set" in capsys.readouterr().err
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path))
    with pytest.raises(StoreError, match="cannot write the job summary"):
        emit.write(MIXED, "github", None)


def test_unknown_format(command):
    code, out, err = command("clipeval", "check", "a", "--against", "b", "--format", "jnit")
    assert (code, out) == (2, "")
    assert "--format jnit: unknown. Did you mean 'junit'?" in err


WORDS = st.text(st.sampled_from("ab1 _*`[]()<>|\\#@:&~!-+=.\"'/;é"), max_size=24).map(
    lambda text: " ".join(text.split())
)


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(WORDS, WORDS)
def test_markdown_shows_any_name_as_it_is(name, reason):
    """As CommonMark with GitHub's tables and strikethrough reads it (markdown-it-py), each cell is the text itself."""
    table = emit.markdown(result(cell("fail", reason, model=name, baseline_model=name, dataset=f"d{name}")))
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(table)
    inline = [token for token in tokens if token.type == "inline"]
    children = [child for token in inline for child in token.children]
    assert {child.type for child in children} <= {"text", "strong_open", "strong_close", "html_inline"}
    assert {child.content for child in children if child.type == "html_inline"} <= {"<!-- -->"}
    shown = ["".join(c.content for c in token.children if c.type != "html_inline") for token in inline]
    cells = shown[shown.index("why") + 1 :][:6]
    assert cells == ["fail", printable(f"d{name} · top-1"), "62.50", "50.00", "-12.50", printable(reason)]


def test_ordinary_names_need_no_escape_in_markdown():
    name = "hf-hub:timm/vit_base_patch16 (a.b, 2.5 %), imagenet1k@it"
    reason = "- drop 8.34 points (at least 6.67), p 9.1e-10!"
    assert f"| fail | {name} · top-1 | 62.50 | 50.00 | -12.50 | {reason} |" in emit.markdown(
        result(cell("fail", reason, dataset=name))
    )


def test_a_checkpoint_is_named_once_in_markdown():
    cells = [cell("fail", model=model, dataset=dataset) for model in ("one", "two") for dataset in "abc"]
    table = emit.markdown(result(*cells))
    assert [table.count(f"{name} (baseline") for name in ("one", "two")] == [1, 1]
    assert table.count("| fail |") == 6


def test_files_are_named_below_their_common_folder():
    both = {"model": "runs/zoo/new", "baseline_model": "runs/zoo/old"}
    assert emit.text(result(cell("pass", **both))).startswith("Checkpoints in runs/zoo/: new (baseline: old)\n")

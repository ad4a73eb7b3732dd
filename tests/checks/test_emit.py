"""Each format to the letter, and with names that mean harm."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from xml.etree import ElementTree

import pytest

from clipeval.checks import emit
from clipeval.checks.verdicts import CheckedCell, CheckResult, Finding
from clipeval.errors import StoreError, UsageError

NAN = float("nan")


def cell(verdict, reason="because", model="new", baseline_model="old", dataset="d", current=0.5, **more):
    findings = (Finding("max_drop", verdict, reason),)
    values = {"shots": None, "seed": None, "baseline": 0.625, "current": current, "findings": findings, **more}
    return CheckedCell(model, baseline_model, dataset, "zeroshot_classification", "acc1", **values)


def result(*cells, notes=("a note",)):
    return CheckResult(cells, notes, "now", "before", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))


MIXED = result(
    cell("fail", p=0.01, p_holm=0.02, test="exact McNemar"),
    cell("not-comparable", "split val here, test in the baseline", dataset="e"),
    cell("cannot-tell", "missing: there is no such row", dataset="g", current=NAN),
    cell("pass", "no drop", model="old", shots=5, seed=1),
)
HOSTILE = "<script>alert(1)</script>|[x](javascript:y) `a` ::error::\n\x1b[31m\x00%0A, \ud800 & ]]> [red]"


def test_text():
    lines = [line.strip("─ ") for line in emit.text(MIXED, width=180).splitlines() if line.strip("─ ")]
    cell = "zeroshot_classification · acc1"
    assert [re.split(r"\s{3,}", line) for line in lines] == [
        ["verdict", "checkpoint", "data set · task · metric", "baseline", "current", "change", "why"],
        ["fail", "new (baseline: old)", f"d · {cell}", "62.50", "50.00", "-12.50", "because"],
        [
            *("not-comparable", "new (baseline: old)", f"e · {cell}", "62.50", "50.00", "-12.50"),
            "split val here, test in the baseline",
        ],
        [
            *("cannot-tell", "new (baseline: old)", f"g · {cell}", "62.50", "–", "–"),
            "missing: there is no such row",
        ],
        ["pass", "old", "d · zeroshot_classification · 5 shots · seed 1 · acc1", "62.50", "50.00", "-12.50", "no drop"],
        ["a note"],
        ["check FAILED: 1 fail, 1 not-comparable, 1 cannot-tell, 1 pass (4 cells, now against before)"],
    ]


def test_one_checkpoint_is_named_once():
    lines = emit.text(result(cell("fail"), cell("pass"))).splitlines()
    assert lines[0] == "new (baseline: old)"
    assert " ".join(lines[2].split()) == "verdict data set · task · metric baseline current change why"


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
    assert list(document) == ["verdict", "exit_code", "counts", "current", "baseline", "notes", "cells"]
    assert document["counts"] == {"fail": 1, "not-comparable": 1, "cannot-tell": 1, "pass": 1}
    assert (document["verdict"], document["exit_code"]) == ("fail", 1)
    assert document["cells"][0] == {
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
        "p": 0.01,
        "p_holm": 0.02,
        "test": "exact McNemar",
        "reason": "because",
        "findings": [{"rule": "max_drop", "verdict": "fail", "reason": "because"}],
    }
    assert document["cells"][2]["current"] is None


def test_junit():
    assert emit.junit(result(cell("fail", model="old"), cell("pass", "no drop"))) == (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        "<testsuites>\n"
        '  <testsuite name="clipeval check" package="clipeval" id="0" hostname="localhost" '
        'timestamp="2026-01-02T03:04:05" tests="2" failures="1" errors="0" time="0">\n'
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
        *("tests", "failures", "errors", "time"),
    }
    assert [child.tag for child in suite] == ["properties", *["testcase"] * 4, "system-out", "system-err"]
    assert all(set(case.attrib) == {"classname", "name", "time"} for case in suite.iter("testcase"))
    found = [[(child.tag, child.get("type")) for child in case] for case in suite.iter("testcase")]
    assert found == [[("failure", "fail")], [("error", "not-comparable")], [("error", "cannot-tell")], []]
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("4", "1", "2")


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
        "::error title=clipeval%3A fail::new (baseline: old): d · zeroshot_classification · acc1: because\n"
        "::warning title=clipeval%3A not-comparable::new (baseline: old): e · zeroshot_classification · acc1: "
        "split val here, test in the baseline\n"
        "::warning title=clipeval%3A cannot-tell::new (baseline: old): g · zeroshot_classification · acc1: "
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
        "### check FAILED&#58; 1 fail &#40;1 cells, now against before&#41;",
        "",
        "| verdict | checkpoint | data set · task · metric | baseline | current | change | why |",
        "|---|---|---|--:|--:|--:|---|",
        "| fail | new &#40;baseline&#58; old&#41; | d · zeroshot&#95;classification · acc1 | 62&#46;50 | 50&#46;00 | "
        "&#45;12&#46;50 | drop |",
        "",
        "- note&#124;1",
    ]


def test_markdown_with_hostile_names_is_text():
    line = emit.markdown(result(cell("fail", HOSTILE, model=HOSTILE))).splitlines()[4]
    assert line.count("|") == 8
    assert not set("<>`[]") & set(line)


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


def test_unknown_format():
    with pytest.raises(UsageError, match=r"--format jnit: unknown. Did you mean 'junit'"):
        emit.require_format("jnit")

"""The numbers of the page are those of the table, whatever names are in it."""

from __future__ import annotations

import base64
import hashlib
import math
import re
import sys

import made
import numpy as np
import pandas as pd
import pytest
from made import HOSTILE, column, data, parse, row, table

import clipeval
from clipeval import cli
from clipeval.errors import MeasureError, UsageError


@pytest.fixture(scope="module")
def tree(run):
    return parse(run.page)


def board(tree, title):
    """The lines of a leaderboard as lists of texts."""
    found = next(t for t in tree.all("table", class_="sortable filterable") if t.one("caption").text.startswith(title))
    return [
        [cell.text for cell in line.children if isinstance(cell, made.Element)] for line in found.one("tbody").all("tr")
    ]


def page_of(rows, tmp_path):
    return parse(clipeval.report(table(rows, tmp_path / "results"), tmp_path / "page"))


def test_every_number_of_the_boards_is_the_tables(run, tree):
    frame = clipeval.read_results(run.results)
    seen = set()
    for panel in tree.one("section", id="leaderboard").all("td"):
        if not (button := next(panel.all("button"), None)):
            continue
        number = int(button.attributes["data-row"])
        seen.add(number)
        expected = frame.loc[number]
        assert float(panel.attributes["data-v"]) == expected["value"]
        assert button.text == f"{100 * expected['value']:.1f}"
        assert panel.one("small").text == f"{100 * expected['ci_low']:.1f}–{100 * expected['ci_high']:.1f}"
    earlier = frame["model"].str.contains("000500")
    assert seen == set(frame.index[(frame["status"] == "ok") & ~earlier]), (
        "the earlier checkpoint is in the curves only"
    )


def test_lines_are_ranked_and_told_apart(tmp_path):
    rows = [
        row("a", value=0.5, ci_low=0.4, ci_high=0.6),
        row("b", value=0.75),
        row("c", value=0.5),
        row("d", value=0.25, precision="fp16"),
        row("d", value=0.855, precision="fp32", limit=7, status="limited"),
        row("e", value=math.nan, status="failed", error="out of memory"),
        row("f", value=math.inf),
    ]
    lines = board(page_of(rows, tmp_path), "digits")
    assert [line[:3] for line in lines] == [
        ["1", "b", "75.0"],
        ["2", "a", "50.040.0–60.0"],
        ["2", "c", "50.0"],
        ["4", "dprecision fp16", "25.0"],
        ["–", "dlimited to 7 samples · precision fp32", "85.5"],
        ["–", "e", "missing"],
        ["–", "f", "missing"],
    ]


def test_less_may_be_better(tmp_path):
    rows = [row(m, metric="calibration", value=v, higher_is_better=False) for m, v in (("a", 0.3), ("b", 0.1))]
    assert [line[1] for line in board(page_of(rows, tmp_path), "digits")] == ["b", "a"]


def test_missing_cells_say_why(tmp_path):
    rows = [
        row("a"),
        row("a", "icons"),
        row("b"),
        row("c", "icons", value=math.nan, status="failed", error="out of memory"),
        row("c", "digits", value=math.nan),
        row("d", "pairs", task="zeroshot_retrieval", value=math.nan, status="skipped", error="no captions"),
    ]
    tree = page_of(rows, tmp_path)
    lines = [
        [cell.text for cell in line.children if isinstance(cell, made.Element)]
        for line in tree.one("section", id="missing").one("tbody").all("tr")
    ]
    assert sorted(map(tuple, lines)) == [
        ("digits", "Zero-shot classification", "the value is not a finite number", "c"),
        ("icons", "Zero-shot classification", "failed: out of memory", "c"),
        ("icons", "Zero-shot classification", "not in these results", "b"),
        ("pairs", "Zero-shot retrieval", "skipped: no captions", "d"),
    ]
    heat = tree.one("table", class_="heat filterable few")
    cells = {line.one("th").text: [cell.text for cell in line.all("td")] for line in heat.one("tbody").all("tr")}
    assert cells == {
        "a": ["50.0", "50.0"],
        "b": ["50.0", "not in these results"],
        "c": ["!missing: the value is not a finite number", "!missing: failed: out of memory"],
    }


def test_heat_map_colours_run_from_lowest_to_highest(tmp_path):
    rows = [row(m, d, value=v) for m, d, v in (("a", "x", 0.2), ("b", "x", 0.3), ("c", "x", 0.6), ("a", "y", 0.9))]
    heat = page_of(rows, tmp_path).one("table", class_="heat filterable few")
    places = {
        line.one("th").text: [c.attributes.get("style") for c in line.all("td")] for line in heat.one("tbody").all("tr")
    }
    assert places == {"a": ["--at:0.000", "--at:0.500"], "b": ["--at:0.250", None], "c": ["--at:1.000", None]}


def test_every_column_of_every_row_is_one_click_away(run, tree):
    frame, inlined = clipeval.read_results(run.results), data(tree, "rows")
    for number in range(len(frame)):
        for name in frame:
            value, shown = frame.loc[number, name], column(inlined, name, number)
            if pd.isna(value):
                assert shown is None
            else:
                assert shown == value, f"{name} of row {number}"
    commands = inlined["command"]["values"]
    assert any(
        re.fullmatch(r"clipeval run -m \S+ -d colours -t linear_probe --shots 2 --seed 0 --precision fp32", c)
        for c in commands
    )
    assert any("--shots full" in c for c in commands)


def test_hostile_names_are_inert(tmp_path):
    rows = [
        row(f"{HOSTILE} {i}", HOSTILE, metric=metric, value=0.1 + i / 10, source=HOSTILE, source_family=HOSTILE,
            arch=HOSTILE, gmacs_total=10.0**i, error=HOSTILE, shots=shots, task=task, samples_seen=samples)
        for i in range(4) for metric in ("acc1", HOSTILE) for samples in (1e3, 2e3)
        for task, shots in (("zeroshot_classification", None), ("linear_probe", 5), (HOSTILE, None))
    ]  # fmt: skip
    rows.append(row(HOSTILE, HOSTILE, value=math.nan, status="failed", error=HOSTILE))
    folder = table(rows, tmp_path / "results")
    page = clipeval.report(folder, tmp_path / "page")
    tree = parse(page)
    assert len(list(tree.all("script"))) == 5
    assert not [i for i in tree.all("img") if not i.attributes["src"].startswith("data:image/")]
    assert all(
        "onerror" not in e.attributes for tag in ("td", "tr", "th", "option", "button", "div") for e in tree.all(tag)
    )
    assert board(tree, HOSTILE[:9])[0][1].startswith(" ".join(HOSTILE.split()))
    for name in ("rows", "figures", "pairs"):
        assert "<" not in "".join(tree.one("script", id=name).children)
    names = {trace["name"] for figure in data(tree, "figures").values() for trace in figure["data"] if "name" in trace}
    assert names
    assert not [name for name in names if "<" in name], "Plotly reads HTML in names"
    markdown = (tmp_path / "page/report.md").read_text()
    assert "<script" not in markdown.replace("\\<script", "")


def test_only_our_scripts_may_run_and_nothing_is_loaded(tree):
    policy = tree.one("meta", **{"http-equiv": "Content-Security-Policy"}).attributes["content"]
    scripts = [s for s in tree.all("script") if s.attributes.get("type") != "application/json"]
    digests = [base64.b64encode(hashlib.sha256("".join(s.children).encode()).digest()).decode() for s in scripts]
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    assert policy.startswith(
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:;"
    )
    local = {"results.csv", "report.md", "model-index.yaml", "data:,"}
    for tag, attribute in (("a", "href"), ("link", "href"), ("img", "src"), ("script", "src")):
        for element in tree.all(tag):
            target = element.attributes.get(attribute, "#")
            assert target.startswith(("#", "data:image/")) or target in local


def test_landmarks_headings_captions_and_labels(tree):
    assert tree.one("html").attributes["lang"] == "en"
    body = [child.tag for child in tree.one("body").children if isinstance(child, made.Element)]
    assert [tag for tag in body if tag in ("header", "nav", "main", "footer")] == ["header", "nav", "main", "footer"]
    assert len(list(tree.all("h1"))) == 1
    assert all(next(t.all("caption"), None) for t in tree.all("table"))
    assert all(head.attributes.get("scope") in ("col", "row") for head in tree.all("th"))
    labelled = {id(control) for label in tree.all("label") for tag in ("select", "input") for control in label.all(tag)}
    assert all(id(control) in labelled for tag in ("select", "input") for control in tree.all(tag))
    ids = [
        e.attributes["id"]
        for tag in ("section", "div", "h2", "script", "dialog", "table")
        for e in tree.all(tag)
        if "id" in e.attributes
    ]
    assert len(ids) == len(set(ids))
    for link in tree.one("nav").all("a"):
        assert link.attributes["href"].removeprefix("#") in ids


def test_several_results_are_joined_once(tmp_path):
    first = table([row("a"), row("b", value=0.6)], tmp_path / "one")
    second = table([row("b", value=0.6), row("b", value=0.61), row("c", value=0.7)], tmp_path / "two")
    lines = board(parse(clipeval.report([first, second, first], tmp_path / "page")), "digits")
    assert [line[2] for line in lines] == ["70.0", "61.0", "60.0", "50.0"]
    assert lines[1][1].startswith("bresults file ")


def test_a_csv_table_and_one_model_on_one_data_set(tmp_path):
    table([row("only")], tmp_path)
    clipeval.read_results(tmp_path).to_csv(tmp_path / "t.csv", index=False)
    tree = parse(clipeval.report(tmp_path / "t.csv", tmp_path / "page"))
    assert tree.one("h1").text == "1 checkpoint on 1 data set"
    assert board(tree, "digits")[0][:3] == ["1", "only", "50.0"]


def test_wrong_input_is_refused(tmp_path, capsys, monkeypatch):
    empty = table([], tmp_path / "empty")
    with pytest.raises(MeasureError, match=r"empty: the table has no rows"):
        clipeval.report(empty, tmp_path / "page")
    with pytest.raises(UsageError, match="no results given"):
        clipeval.report([], tmp_path / "page")
    for words, code, message in (
        ([empty], 3, "the table has no rows"),
        ([tmp_path / "nothing.csv"], 2, "no results table here"),
    ):
        monkeypatch.setattr(sys, "argv", ["clipeval", "report", *map(str, words), "-o", str(tmp_path / "page")])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        assert stop.value.code == code
        assert message in capsys.readouterr().err
    assert not (tmp_path / "page").exists()


def test_the_published_tables_fit_on_a_page(tmp_path, monkeypatch):
    from clipeval.reporting import scaling
    from clipeval.results.published import folder, published

    monkeypatch.setattr(scaling, "MOST_FITTED", 1)
    page = clipeval.report(sorted(folder().glob("*.parquet")), tmp_path)
    assert page.stat().st_size < 15e6
    tree = parse(page)
    assert len(data(tree, "rows")["model"]["codes"]) == len(published())
    final = published().query("study == 'open_clip' and dataset == 'datacomp'")
    best = final.loc[final["value"].idxmax()]
    line = board(tree, "DataComp")[0]
    assert line[:3] == ["1", best["model"], f"{100 * best['value']:.1f}"]
    assert np.isclose(len(board(tree, "DataComp")), len(final))

"""The sentences of the column ``notes``, on the page and in Markdown."""

from __future__ import annotations

import json

from made import HOSTILE, parse, row, table

import clipeval

CUT = "284 of 300 captions were cut at 12 tokens, the context length"


def test_every_sentence_is_shown_once_with_what_it_is_about(tmp_path):
    rows = [
        row("a", dataset="pairs", value=0.5, notes=json.dumps({"remarks": [CUT, "b & <i>c</i>"], "ties": 3})),
        row("b", dataset="pairs", value=0.5, notes=json.dumps({"remarks": [CUT]})),
        row("b", dataset="digits", value=0.5, notes=json.dumps({"remarks": [HOSTILE]})),
        row("c", dataset="digits", value=0.5, notes="no JSON"),
        row("d", dataset="digits", value=0.5, notes='{"remarks": 5}'),
        row("e", dataset="digits", value=0.5, notes='["remarks"]'),
        row("f", dataset="digits", value=0.5, notes='{"remarks": [5, null]}'),
    ]
    page = clipeval.report(table(rows, tmp_path / "results"), tmp_path / "page")
    lines = list(parse(page).one("section", id="noticed").one("tbody").all("tr"))
    assert [line.one("th").text for line in lines] == [CUT, "b & <i>c</i>", HOSTILE]
    assert "pairs" in lines[0].text
    assert "2 checkpoints" in lines[0].text
    assert "a · b" in lines[0].text
    markdown = (tmp_path / "page" / "report.md").read_text()
    assert markdown.count(f"| {CUT} | pairs | a, b |") == 1
    assert "<i>" not in markdown


def test_nothing_noticed_is_no_section(tmp_path):
    rows = [row("a", value=0.5, notes='{"ties": 3}'), row("b", value=0.5)]
    page = clipeval.report(table(rows, tmp_path / "results"), tmp_path / "page")
    assert not list(parse(page).all("section", id="noticed"))
    assert "Noticed" not in (tmp_path / "page" / "report.md").read_text()

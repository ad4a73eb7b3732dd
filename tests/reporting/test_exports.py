"""The table in other forms."""

from __future__ import annotations

import csv
import itertools
import math
import re

import pytest
import yaml
from huggingface_hub import ModelCard
from huggingface_hub.repocard_data import model_index_to_eval_results
from made import row, table
from markdown_it import MarkdownIt

import clipeval


def files(rows, tmp_path):
    clipeval.report(table(rows, tmp_path / "results"), tmp_path / "page")
    return tmp_path / "page"


def test_csv_holds_the_table_and_no_formula(tmp_path):
    rows = [row("=cmd|'/c calc'!A1", value=0.1 + 0.2), row("plain", value=0.25)]
    page = files(rows, tmp_path)
    found = clipeval.read_results(page / "results.csv")
    assert found["value"].tolist() == [0.1 + 0.2, 0.25]
    assert found["model"].tolist() == [r["model"] for r in rows]
    with (page / "results.csv").open(newline="") as file:
        cells = [cell for line in csv.reader(file) for cell in line]
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@"))]


def test_markdown_leaderboard(tmp_path):
    rows = [row("a|b*", value=0.75, ci_low=0.7, ci_high=0.8), row("c", value=math.nan, status="failed", error="why: x")]
    text = (files(rows, tmp_path) / "report.md").read_text()
    assert "### digits" in text
    assert "| # | Model | Source | Samples seen | GMACs | Top-1 |\n| --: | --- | --- | --: | --: | --: |\n" in text
    assert "| 1 | a&#124;b&#42; | toy | 1k | 0.5 | 75.0 (70.0–80.0) |" in text
    assert "|  | c | toy | 1k | 0.5 | – failed |" in text


HOSTILE = (
    "https://evil.example/a", "see www.evil.example now", "mail a@b.example", "@someone", "\x1b[31mred", "a\u202eb",
    "mailto:x@y.example", "[x](javascript:alert)", "<script>", "line\nbreak | cell", "&lt;b&gt;", "*b* _i_ `c` ~~s~~",
    "c:d",
)  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_markdown_shows_names_as_they_are(tmp_path, name):
    """Read back by a CommonMark parser: the text of the cell is the name, and there is no link. What GitHub makes links
    of beyond CommonMark (addresses, names after @) is not in the source."""
    source = (files([row(name, source=name)], tmp_path) / "report.md").read_text()
    assert source.isprintable() or set(source) - set("\n") <= {c for c in source if c.isprintable()}
    assert not re.search(r"https?://|www\.|(?<!\w)@\w|\w@\w+\.\w|mailto:", source)
    [cell, _] = [
        token
        for before, token in itertools.pairwise(MarkdownIt("commonmark").enable("table").parse(source))
        if before.type == "td_open" and token.content and _text(token) == " ".join(name.split()).translate(SHOWN)
    ]
    assert {child.type for child in cell.children} <= {"text", "text_special", "html_inline"}
    assert {child.content for child in cell.children if child.type == "html_inline"} <= {"<!-- -->"}


SHOWN = {0x1B: "\\x1b", 0x202E: "\\u202e"}


def _text(token):
    return "".join(child.content for child in token.children if child.type != "html_inline")


def test_model_index_is_read_by_the_hubs_own_library(tmp_path):
    rows = [
        row("one", value=0.123456789, ci_low=0.1, ci_high=0.2, split="test", dataset_fingerprint="f" * 64),
        row("one", metric="acc5", value=0.5, split="test", dataset_fingerprint="f" * 64),
        row("one", "icons", task="linear_probe", shots=5, seed=1, value=0.75),
        row("one", "icons", value=math.nan, status="failed", error="no"),
        row("two: <b>", value=0.25),
        row("two: <b>", "icons", value=0.9, limit=10, status="limited"),
    ]
    index = yaml.safe_load((files(rows, tmp_path) / "model-index.yaml").read_text())["model-index"]
    assert [entry["name"] for entry in index] == ["one", "two: <b>"]
    assert [len(entry["results"]) for entry in index] == [2, 1], "failed and limited cells are no results of a card"
    name, results = model_index_to_eval_results(index[:1])
    found = {(r.task_type, r.dataset_type, r.metric_type): r for r in results}
    assert name == "one"
    assert {key: r.metric_value for key, r in found.items()} == {
        ("zero-shot-image-classification", "digits", "accuracy"): 0.123456789,
        ("zero-shot-image-classification", "digits", "acc5"): 0.5,
        ("image-classification", "icons", "accuracy"): 0.75,
    }
    cards = {
        path.name: ModelCard(f"---\n{path.read_text()}---\n") for path in (tmp_path / "page/model-index").iterdir()
    }
    assert {name: (card.data.model_name, len(card.data.eval_results)) for name, card in cards.items()} == {
        "one.yaml": ("one", 3),
        "two_b.yaml": ("two: <b>", 1),
    }
    assert [vars(r) for r in cards["one.yaml"].data.eval_results] == [vars(r) for r in results]
    probe = found["image-classification", "icons", "accuracy"]
    assert probe.dataset_args == {"shots": 5, "seed": 1}
    zero_shot = found["zero-shot-image-classification", "digits", "accuracy"]
    assert zero_shot.metric_args == {"ci_low": 0.1, "ci_high": 0.2}
    assert zero_shot.dataset_split == "test"


def test_cards_are_those_of_the_last_report(tmp_path):
    """Names that make the same file name have files of their own, and none of an earlier report stays."""
    page = files([row("a/b"), row("a:b"), row("../../x"), row("c")], tmp_path)
    assert sorted(path.name for path in (page / "model-index").iterdir()) == [
        "a_b.yaml",
        "a_b_.yaml",
        "c.yaml",
        "x.yaml",
    ]
    files([row("c")], tmp_path)
    assert [path.name for path in (page / "model-index").iterdir()] == ["c.yaml"]
    names = [entry["name"] for entry in yaml.safe_load((page / "model-index.yaml").read_text())["model-index"]]
    assert names == ["c"]
    (tmp_path / "other/model-index").mkdir(parents=True)
    with pytest.raises(clipeval.UsageError, match="holds model-index, and not of an earlier report"):
        clipeval.report(table([row("c")], tmp_path / "results"), tmp_path / "other")

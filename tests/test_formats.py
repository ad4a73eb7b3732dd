"""``--format md`` and ``tsv``: what a Markdown parser and the csv module read back are the cells of the terminal."""

from __future__ import annotations

import csv
import io
import json
import re

import pytest
from helpers import tiny_checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from clipeval.answer import answered_as
from clipeval.console import recorded, show, show_lines
from clipeval.drawing import Column
from clipeval.plain import printable, unquoted
from clipeval.tables import Sheet

GITHUB = MarkdownIt("commonmark").enable(["table", "strikethrough"])
ODD = (
    *("a|b", "\\|", "`a` ``b", "[x](y)", "![x](y)", "<b>&lt;</b>", "*i* __b__ ~~s~~", "# 1", "- 1", "1. 2", "=", "a\\"),
    *(
        "@someone a@b.de",
        "#12 :bug: $x$",
        "https://a.b www.a.b",
        "tab\tnul\x00",
        '"q" r',
        "=1+2",
        "[x]: y",
        "[ ] z",
        "[^1]: a",
        "> q",
        "* l",
        "<!--",
        "_a_ b_c",
        "–",
    ),
)
ANY = st.text(st.sampled_from("ab1 _*`[]()<>|\\#@:&~!-+=.\"'/;$é\n\t"), max_size=24).map(
    lambda text: "\n".join(" ".join(line.split(" ")).strip() for line in text.split("\n"))
)


def read(document):
    """Of each block of a page what a reader sees: a table as rows of texts, any other as one text."""
    found, inside = [], False
    for token in GITHUB.parse(document):
        if token.type in ("table_open", "table_close"):
            inside = token.type == "table_open"
            found += [[]] if inside else []
        elif token.type == "tr_open":
            found[-1].append([])
        elif token.type == "inline":
            seen = {"<br>": "\n", "<!-- -->": ""}
            marks = ("strong_open", "strong_close")
            assert {child.type for child in token.children} <= {"text", "html_inline", *marks}, token
            text = "".join(seen[c.content] if c.type == "html_inline" else c.content for c in token.children)
            (found[-1][-1] if inside else found).append(text)
    return found


def sheet(rows, title="T"):
    made = Sheet(title, Column("name", "name"), Column("of\nit", "name"), Column("word"), Column("value", "figure"))
    for row in rows:
        made.add(*row)
    return made


def shown(text):
    return "\n".join(printable(line) for line in text.split("\n"))


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(st.lists(st.tuples(ANY, ANY, ANY), min_size=2, max_size=4), ANY)
def test_markdown_is_read_back_whatever_names_hold(rows, title):
    made = sheet([(f"{n}{a}", f"{b}{n}", c, "-0.5") for n, (a, b, c) in enumerate(rows)], f"T {title} t")
    made.legend.append(f"s: {title} s")
    *above, table, below = read(made.markdown())
    assert above == [printable(f"T {title} t")]
    assert table == [["name", "of it", "word", "value"], *map(list, made.rows)]
    assert below == printable(f"s: {title} s")


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(st.lists(st.tuples(ANY, ANY, ANY), max_size=4))
def test_tsv_is_read_back_whatever_names_hold(rows):
    made = sheet([(*row, "-0.5") for row in rows])
    text = made.tsv()
    cells = list(csv.reader(io.StringIO(text), "excel-tab"))
    assert cells[0] == ["name", "of it", "word", "value"]
    assert [list(map(unquoted, row)) for row in cells[1:]] == [
        [cell.replace("\n", "; ") for cell in row] for row in made.rows
    ]
    assert not [cell for row in cells for cell in row[:3] if cell.startswith(("=", "+", "-", "@"))]
    lines = text.split("\n")
    assert [line.count("\t") for line in lines] == [3] * (len(rows) + 1), "awk and cut see the same cells"


@pytest.mark.parametrize("name", ODD)
def test_odd_names(name):
    made = sheet([(name, "a", name, "1"), ("b", name, "", "2")], name)
    title, table = read(made.markdown())
    assert title == printable(name)
    assert table[1:] == [[shown(name), "a", shown(name), "1"], ["b", shown(name), "", "2"]]
    assert not re.search(r"@someone|@b\.de|(?<!&)#\d|:bug:|://|www\.|\$|`", made.markdown())


def test_ordinary_names_are_as_they_are():
    name = "hf-hub:timm/vit_base_patch16 (a.b, 2.5 %), ViT-B-32 · LAION-2B [0.1, 0.2] * < 3, p <0.001, -1 & x"
    assert f"| {name} |" in sheet([(name, "a", "", "1"), ("b", "a", "", "2")]).markdown()


def test_to_the_letter():
    """In Markdown a name that all lines share is said once, and columns without a cell are left out; TSV has all."""
    made = Sheet("T", Column("a", "name"), Column("b", "name"), Column("c", leaves=1), Column("d", "figure"))
    made.add("x", "same", "", "1.5 [1, 2]")
    made.add("y", "same", "", "2\n3")
    made.legend.append("d: a number")
    assert made.markdown() == (
        "**T: same**\n\n| a | d |\n| --- | --: |\n| x | 1.5 [1, 2] |\n| y | 2<br>3 |\n\n- d: a number"
    )
    assert made.tsv() == "a\tb\tc\td\nx\tsame\t\t1.5 [1, 2]\ny\tsame\t\t2; 3"
    assert sheet([]).markdown() == "**T**"


@pytest.mark.parametrize("form", ["text", "md", "tsv"])
def test_an_answer_of_tables_and_lines(form, capsys):
    one = sheet([("x", "y", "", "1"), ("z", "y", "", "2")])
    one.legend.append("a legend")

    def answer():
        one.print()
        show("")
        one.print()
        show("said")
        show_lines(["· *noted*"])
        raise ValueError("later")

    with pytest.raises(ValueError, match="later"), answered_as(form):
        answer()
    out, err = capsys.readouterr()
    if form == "text":
        assert (out.splitlines()[-2:], err) == (["said", "· *noted*"], "")
    if form == "md":
        title, table, legend, *again, said, noted = read(out)
        assert [title, table, legend] == again
        assert (title, legend, said, noted, err) == ("T: y", "a legend", "said", "*noted*", "")
    if form == "tsv":
        assert out == f"{one.tsv()}\n\n{one.tsv()}\n"
        assert err.splitlines() == ["T", "a legend", "T", "a legend", "said", "· *noted*"]
    with recorded(80) as items:
        pass
    assert items == []


@pytest.mark.parametrize(
    "words",
    [
        ("list", "studies"),
        ("list", "keys", "rules"),
        ("fit", "cherti2023", "--task", "retrieval", "--bootstrap", "100"),
        ("design", "cherti2023", "--budget", "1e12", "-d", "imagenet1k", "-t", "classification"),
        ("run", "-m", "a.pt", "-d", "digits", "--limit", "40", "-o", "out", "--workers", "0", "-q", "--plan"),
        ("run", "-m", "a.pt", "-d", "digits", "--limit", "40", "-o", "out", "--workers", "0", "-q"),
    ],
    ids=lambda words: f"{words[0]} {words[-1]}",
)
def test_every_command_whose_answer_is_a_table(command, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny_checkpoint(tmp_path / "a.pt")
    code, text, _ = command("clipeval", *words)
    of_md, page, _ = command("clipeval", *words, "--format", "md")
    of_tsv, values, notes = command("clipeval", *words, "--format", "tsv")
    assert code == of_md == of_tsv
    tables = [block for block in read(page) if isinstance(block, list)]
    written = [list(csv.reader(io.StringIO(table), "excel-tab")) for table in values.split("\n\n")]
    assert len(tables) == len(written) == text.count(" ──")
    for table, rows in zip(tables, written, strict=True):
        assert len(table) == len(rows) > 1
        assert len({len(row) for row in rows}) == 1
        assert set(table[0]) <= set(rows[0])
    last = text.strip().splitlines()[-1].removeprefix("· ")
    assert last in notes
    assert last in read(page)


def test_one_form_at_a_time(command):
    for words in (["--json", "--format", "md"], ["--format", "tsv", "--json"]):
        code, out, err = command("clipeval", "list", "tasks", *words)
        assert (code, out, err) == (2, "", "clipeval: --json and --format: give one of them.\n")
    assert json.loads(command("clipeval", "list", "tasks", "--json", "--format", "text")[1])
    code, _, err = command("clipeval", "list", "tasks", "--format", "tvs")
    assert code == 2
    assert "Did you mean 'tsv'? Choose from: text, md, tsv." in err
    assert command("clipeval", "list", "tasks")[1].startswith(" name"), "a form ends with its command"

"""The comment of a pull request, read back by a Markdown parser with GitHub's tables."""

from __future__ import annotations

import re

from markdown_it import MarkdownIt
from test_emit import HOSTILE, MIXED, cell, mean, result

from clipeval.checks.comment import COMMENT_BYTES, MARKER, comment
from clipeval.checks.result import CheckResult

GITHUB = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])


def _tables(document):
    """Every table of a page as rows of the texts of its cells, as a reader sees them."""
    tables, inside = [], False
    for token in GITHUB.parse(document):
        if token.type in ("table_open", "table_close"):
            inside = token.type == "table_open"
            tables += [[]] if inside else []
        elif token.type == "tr_open":
            tables[-1].append([])
        elif token.type == "inline" and inside:
            tables[-1][-1].append("".join(part.content for part in token.children))
    return tables


def test_what_decides_stands_on_top():
    document = comment(MIXED)
    assert document.startswith(f"{MARKER}\n### ❌ clipeval: a loss is shown\n")
    assert "check FAILED: 1 fail, 1 not-comparable, 1 cannot-tell, 1 pass (4 cells, now against before)" in document
    above, folded = document.split("<details>")
    assert [row[0] for row in _tables(above)[0]] == ["", "❌", "⚠️", "⚠️"]
    assert _tables(above)[0][1] == [
        "❌", "new (baseline: old)", "d · zeroshot_classification · acc1", "62.50", "50.00", "-12.50", "because",
    ]  # fmt: skip
    assert _tables(above)[0][3][3:6] == ["62.50", "–", "–"]
    assert folded.startswith("<summary>1 more cell</summary>\n")
    assert [row[1] for row in _tables(folded)[0]] == ["checkpoint", "old"]
    assert document.endswith("- a note\n")


def test_a_mean_that_passes_is_shown_and_one_checkpoint_is_named_once():
    parts = [cell("cannot-tell", decides=False), cell("pass", dataset="e")]
    document = comment(CheckResult(parts, means=[mean("pass")]))
    above, folded = document.split("<details>")
    assert above.startswith(f"{MARKER}\n### ✅ clipeval: no loss\n")
    assert document.count("new (baseline: old)") == 1
    [[head, row]] = _tables(above)
    assert head == ["", "data set · task · metric", "baseline", "now", "change", "why"]
    assert row[:2] == ["✅", "mean of 2 data sets · zeroshot_classification · acc1"]
    assert len(_tables(folded)[0]) == 3


def test_every_verdict_has_a_title():
    titles = [comment(result(cell(verdict))).splitlines()[1] for verdict in ("fail", "not-comparable", "cannot-tell")]
    assert titles == [
        "### ❌ clipeval: a loss is shown",
        "### ⚠️ clipeval: results cannot be compared",
        "### ⚠️ clipeval: not decided",
    ]
    assert comment(result()).splitlines()[1] == titles[2]


def test_hostile_names_are_text():
    """No tag, link or mention but ours, and no cell more."""
    names = HOSTILE + " @everyone https://evil.example www.evil.example **b** _i_ ~~s~~ ![p](q) a|b \\| `c"
    document = comment(result(cell("fail", names, model=names, dataset=names), cell("pass", names), notes=(names,)))
    html = GITHUB.render(document)
    allowed = ("details", "summary", "code", "table", "thead", "tbody", "tr", "th", "td", "ul", "li", "p", "h3")
    for tag in allowed:
        html = html.replace(f"<{tag}>", "").replace(f"</{tag}>", "").replace(f'<{tag} style="text-align:right">', "")
    assert "<" not in html.replace(MARKER, "").replace("<!-- -->", "")
    assert all(len(row) == 7 for table in _tables(document) for row in table)
    sentences = re.sub("<code>.*?</code>", "", document)  # in code nothing is linked
    assert not re.findall(r"(?<!\w)@\w|://|www\.", sentences)


def test_a_comment_fits():
    document = comment(result(*[cell("fail", "x" * 3000, model="m" * 500)] * 500, notes=["é" * 5000] * 30))
    assert len(document) < 65_536
    assert len(document.encode()) < COMMENT_BYTES + 20_000
    assert "more do not fit here" in document

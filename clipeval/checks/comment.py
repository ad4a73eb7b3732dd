"""A check's result as the Markdown of a comment: what decides on top, everything else folded away."""

from __future__ import annotations

from clipeval.checks.result import CheckedCell, CheckResult
from clipeval.checks.verdicts import CANNOT_TELL, FAIL, NOT_COMPARABLE, PASS
from clipeval.markdown import escaped, row
from clipeval.plain import printable

MARKER = "<!-- clipeval check -->"
"""The first line, by which a later run finds the comment that it replaces."""
COMMENT_BYTES = 60_000
"""GitHub takes 65,536 characters, GitLab more."""
_MOST_ON_TOP = 20
_MOST_NOTES = 10
_LONGEST_NOTE = 500
_SIGN = {PASS: "✅", FAIL: "❌", NOT_COMPARABLE: "⚠️", CANNOT_TELL: "⚠️"}
_TITLE = {
    PASS: "no loss",
    FAIL: "a loss is shown",
    NOT_COMPARABLE: "results cannot be compared",
    CANNOT_TELL: "not decided",
}


def comment(result: CheckResult) -> str:
    """Markdown that fits a comment; cells that do not are counted. One checkpoint is named above the table."""
    top = [cell for cell in result.lines if cell.members or (cell.decides and cell.verdict != PASS)][:_MOST_ON_TOP]
    rest = [cell for cell in result.lines if not any(cell is other for other in top)]
    names = {cell.who for cell in result.lines}
    named = len(names) > 1
    parts = [
        MARKER,
        f"### {_SIGN[result.verdict]} clipeval: {_TITLE[result.verdict]}\n",
        f"{escaped(result.summary)}\n",
        *(f"{_name(name)}\n" for name in names if not named),
        *_table(top, named, COMMENT_BYTES // 2),
    ]
    if rest:
        title = f"{len(rest)} {'more ' if top else ''}{'cell' if len(rest) == 1 else 'cells'}"
        parts += [f"<details><summary>{title}</summary>\n", *_table(rest, named, COMMENT_BYTES // 3), "</details>\n"]
    return "\n".join([*parts, *(f"- {escaped(note)[:_LONGEST_NOTE]}" for note in result.notes[:_MOST_NOTES])]) + "\n"


def _table(cells: list[CheckedCell], named: bool, room: int) -> list[str]:
    if not cells:
        return []
    names = ["checkpoint"] if named else []
    rows = [row(["", *names, "data set · task · metric", "baseline", "now", "change", "why"])]
    rows.append(row(["---", *(["---"] if named else []), "---", "--:", "--:", "--:", "---"]))
    for number, cell in enumerate(cells):
        change = f"{100 * (cell.current - cell.baseline):+.2f}"
        numbers = ["–" if "nan" in n else n for n in (_percent(cell.baseline), _percent(cell.current), change)]
        who = [_name(cell.who)] if named else []
        line = row([_SIGN[cell.verdict], *who, _name(cell.where), *numbers, escaped(cell.reason)])
        room -= len(line.encode()) + 1
        if room < 0:
            return [*rows, "", f"{len(cells) - number} more do not fit here.", ""]
        rows.append(line)
    return [*rows, ""]


def _percent(value: float) -> str:
    return f"{100 * value:.2f}"


def _name(words: str) -> str:
    """A name as code, in which nothing is a link, a mention or markup."""
    shown = printable(words)
    if shown.strip() == shown and not set("`|\\") & set(shown):
        return f"`{shown}`"
    return f"<code>{escaped(shown)}</code>"

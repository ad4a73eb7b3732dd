"""A check's result for people and for machines: text, JSON, JUnit XML, GitHub annotations and a Markdown table.

Names in results tables are anybody's: each format neutralises what it would take for markup or control characters.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from clipeval.checks.plan import ASSUMED, Plan, Prospect
from clipeval.checks.result import CheckedCell, CheckResult
from clipeval.checks.verdicts import CANNOT_TELL, FAIL, NOT_COMPARABLE, PASS
from clipeval.console import lines, out, say, show_command, show_json
from clipeval.errors import StoreError, UsageError
from clipeval.files import write_text
from clipeval.plain import json_text, printable

if TYPE_CHECKING:
    from rich.text import Text

MOST_ANNOTATIONS = 10
"""GitHub shows no more of a kind per step."""
SUMMARY_BYTES = 1_000_000
"""GitHub refuses a job summary beyond 1 MiB."""
_MOST_LISTED = 1_000
"""Cells of a table for people; of more those that pass are counted."""
_WIDTH = 200
_ROOM_FOR_WHY = 150
"""Columns of a terminal below which the reason is a line of its own."""
_COLOURS = {FAIL: "bold red", NOT_COMPARABLE: "yellow", CANNOT_TELL: "yellow", PASS: "green"}
_MARKDOWN = set("\\`*_{}[]<>()#+-!|~&@:.\"'")


def text(result: CheckResult, width: int = _WIDTH) -> str:
    """A table, the gravest cells first, notes, and one line that sums up. One checkpoint is named above the table."""
    page = io.StringIO()
    _print(result, out(page, width))
    return page.getvalue()


def as_json(result: CheckResult) -> str:
    """``CheckResult.to_dict`` as JSON; a number that is not there is null."""
    return json_text(result.to_dict(), ascii_only=True) + "\n"


def junit(result: CheckResult) -> str:
    """JUnit XML: a test case per cell and mean. ``fail`` is a failure, what stops the check otherwise an error, what is
    undecided and need not be decided is skipped."""
    outcomes = [_outcome(result, cell) for cell in result.lines]
    suite = ElementTree.Element(
        "testsuite",
        {
            "name": "clipeval check",
            "package": "clipeval",
            "id": "0",
            "hostname": "localhost",
            "timestamp": result.made_at.strftime("%Y-%m-%dT%H:%M:%S"),
            "tests": str(len(outcomes)),
            "failures": str(outcomes.count("failure")),
            "errors": str(outcomes.count("error")),
            "skipped": str(outcomes.count("skipped")),
            "time": "0",
        },
    )
    ElementTree.SubElement(suite, "properties")
    for cell, outcome in zip(result.lines, outcomes, strict=True):
        case = ElementTree.SubElement(
            suite, "testcase", {"classname": printable(cell.who), "name": printable(cell.where), "time": "0"}
        )
        if outcome:
            reason = printable(cell.reason)
            said = ElementTree.SubElement(case, outcome, {"type": cell.verdict, "message": reason})
            if outcome == "skipped":
                del said.attrib["type"]
            said.text = f"{printable(_values(cell))}\n{reason}"
    ElementTree.SubElement(suite, "system-out").text = printable("; ".join([result.summary, *result.notes]))
    ElementTree.SubElement(suite, "system-err")
    root = ElementTree.Element("testsuites")
    root.append(suite)
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, "unicode") + "\n"


def _outcome(result: CheckResult, cell: CheckedCell) -> str:
    """The element of a test case; empty where it passes."""
    if cell.verdict in (PASS, FAIL):
        return "" if cell.verdict == PASS else "failure"
    return "error" if result.stops(cell) else "skipped"


def github(result: CheckResult) -> str:
    """GitHub annotations of the first ten that decide and do not pass: errors for regressions, warnings for others."""
    troubles = [cell for cell in result.lines if cell.verdict != PASS and cell.decides]
    said = []
    for cell in troubles[:MOST_ANNOTATIONS]:
        level = "error" if cell.verdict == FAIL else "warning"
        title = _command_property(f"clipeval: {cell.verdict}")
        said.append(f"::{level} title={title}::{_command_data(f'{cell.who}: {cell.where}: {cell.reason}')}\n")
    if len(troubles) > MOST_ANNOTATIONS:
        said.append(f"{len(troubles) - MOST_ANNOTATIONS} more are in the job summary\n")
    return "".join([*said, printable(result.summary), "\n"])


def markdown(result: CheckResult) -> str:
    """The whole table for a job summary; rows beyond GitHub's size limit are counted."""
    rows = [
        f"### {_escaped(result.summary)}\n",
        "| verdict | checkpoint | data set · task · metric | baseline | current | change | why |",
        "|---|---|---|--:|--:|--:|---|",
    ]
    size = 0
    for number, cell in enumerate(result.lines):
        line = "| " + " | ".join(map(_escaped, _columns(cell))) + " |"
        size += len(line.encode()) + 1
        if size > SUMMARY_BYTES:
            rows.append(f"\n{len(result.lines) - number} more cells do not fit here.")
            break
        rows.append(line)
    return "\n".join([*rows, "", *(f"- {_escaped(note)}" for note in result.notes)]) + "\n"


FORMATS: dict[str, Callable[[CheckResult], str]] = {
    "text": text,
    "json": as_json,
    "junit": junit,
    "github": markdown,
}


def write(result: CheckResult, name: str, output: Path | None) -> None:
    """Print a result, or write it to ``output`` and say one line. GitHub's annotations are always printed, its table
    goes to ``output`` or else to the job summary. Raises StoreError."""
    if name == "github":
        show_command(github(result))
        if output is None:
            _append_to_summary(markdown(result))
    if output is not None:
        write_text(output, FORMATS[name](result))
        say(result.summary)
    elif name == "text":
        _print(result, out())
    elif name == "json":
        show_json(result.to_dict())
        say(result.summary)
    elif name == "junit":
        print(junit(result), end="")  # noqa: T201 every name in it is printable
        say(result.summary)


def write_plan(plan: Plan, name: str, output: Path | None) -> None:
    """The same for ``--plan``: text or json. Raises UsageError for another format, and StoreError."""
    if name not in ("text", "json"):
        raise UsageError(f"--format {name}: --plan is shown as text or json.")
    if output is not None:
        page = io.StringIO()
        _print_plan(plan, out(page, _WIDTH))
        write_text(output, json_text(plan.to_dict(), ascii_only=True) + "\n" if name == "json" else page.getvalue())
    elif name == "json":
        show_json(plan.to_dict())
    else:
        _print_plan(plan, out())


def _print_plan(plan: Plan, console: Any) -> None:
    from clipeval.tables import table

    wraps = {"soft_wrap": not console.is_terminal}
    shown = table()
    shown.add_column("data sets · task · metric", overflow="fold")
    for column in (*(f"{100 * share:g} %" for share in ASSUMED), "measured"):
        shown.add_column(column, justify="right", no_wrap=True)
    for planned in plan.planned:
        known = f"{planned.outcomes:,} outcomes, {planned.allowed:g} allowed"
        cells = [lines(planned.where, known), *map(_prospect, planned.prospects)]
        shown.add_row(*cells, *([] if planned.is_measured else ["–"]))
    console.print("If so many outcomes differ: how often an equally good checkpoint passes,", **wraps)
    console.print("suspects apart, and how many outcomes would make that 90 %", **wraps)
    console.print(shown)
    sources = dict.fromkeys(found.source for planned in plan.planned for found in planned.prospects if found.source)
    for line in [*(f"measured: {source}" for source in sources), *plan.notes]:
        console.print(line, **wraps)


def _prospect(found: Prospect) -> Text:
    needed = "never" if found.outcomes_needed is None else f"{found.outcomes_needed:,}"
    share = [f"at {100 * found.share:.2g} %"] if found.source else []
    return lines(f"{100 * found.pass_chance:.0f} %", needed, *share)


def _append_to_summary(document: str) -> None:
    path = os.environ.get("GITHUB_STEP_SUMMARY")
    if not path:
        say("GITHUB_STEP_SUMMARY is not set: the table is not written. Name a file with --output.")
        return
    try:
        with open(path, "a", encoding="utf-8") as file:
            file.write(document)
    except OSError as error:
        raise StoreError(
            f"{path}: cannot write the job summary: {error.strerror}. Name a file with --output."
        ) from error


def _print(result: CheckResult, console: Any) -> None:
    from rich.text import Text

    from clipeval.tables import table

    names = {cell.who for cell in result.lines}
    if len(names) == 1:
        console.print(next(iter(names)), soft_wrap=True)
    narrow = console.width < _ROOM_FOR_WHY
    shown = table()
    shown.add_column("verdict", no_wrap=True)
    for column in (*(["checkpoint"] if len(names) > 1 else []), "data set · task · metric"):
        shown.add_column(column, overflow="fold")
    for column in ("baseline", "current", "change"):
        shown.add_column(column, justify="right", no_wrap=True)
    if not narrow:
        shown.add_column("why", overflow="fold")
    listed = result.lines
    notes = [*result.notes]
    if len(listed) > _MOST_LISTED:
        listed = [cell for cell in listed if cell.verdict != PASS]
        notes.append(f"{len(result.lines) - len(listed):,} cells that pass are not listed: --format json has them")
    for cell in listed:
        verdict, who, where, *values, why = _columns(cell)
        place: str | Text = lines(where, why) if narrow else where
        row = [Text(verdict, style=_COLOURS[cell.verdict]), *([who] if len(names) > 1 else []), place, *values]
        shown.add_row(*row, *([] if narrow else [why]))
    if listed:
        console.print(shown)
    for line in [*notes, result.summary]:
        console.print(line, soft_wrap=not console.is_terminal)


def _columns(cell: CheckedCell) -> list[str]:
    values = [_percent(cell.baseline), _percent(cell.current), _change(cell)]
    return [cell.verdict, cell.who, cell.where, *values, cell.reason]


def _values(cell: CheckedCell) -> str:
    return f"baseline {_percent(cell.baseline)}, current {_percent(cell.current)}, change {_change(cell)} points"


def _percent(value: float) -> str:
    return "–" if math.isnan(value) else f"{100 * value:.2f}"


def _change(cell: CheckedCell) -> str:
    change = 100 * (cell.current - cell.baseline)
    return "–" if math.isnan(change) else f"{change:+.2f}"


def _escaped(words: str) -> str:
    """Text that Markdown and HTML show as it is, in one line."""
    return "".join(f"&#{ord(c)};" if c in _MARKDOWN else c for c in printable(words))


def _command_data(words: str) -> str:
    return printable(words).replace("%", "%25")


def _command_property(words: str) -> str:
    return _command_data(words).replace(":", "%3A").replace(",", "%2C")

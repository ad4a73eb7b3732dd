"""A check's result for people and for machines: text, JSON, JUnit XML, GitHub annotations and a Markdown table.

Names in results tables are anybody's: each format neutralises what it would take for markup or control characters.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from clipeval.checks.comment import comment
from clipeval.checks.plan import ASSUMED, Plan, Prospect
from clipeval.checks.result import CheckedCell, CheckResult
from clipeval.checks.verdicts import CANNOT_TELL, FAIL, NOT_COMPARABLE, PASS
from clipeval.console import out, say, show_command, show_json
from clipeval.drawing import Column
from clipeval.errors import StoreError, UsageError
from clipeval.files import write_text
from clipeval.markdown import escaped, in_cell, row
from clipeval.plain import json_text, printable
from clipeval.tables import NONE, Sheet

if TYPE_CHECKING:
    from rich.console import Console

MOST_ANNOTATIONS = 10
"""GitHub shows no more of a kind per step."""
SUMMARY_BYTES = 1_000_000
"""GitHub refuses a job summary beyond 1 MiB."""
_MOST_LISTED = 1_000
"""Cells of a table for people; of more those that pass are counted."""
_WIDTH = 200
_COLOURS = {FAIL: "bold red", NOT_COMPARABLE: "yellow", CANNOT_TELL: "yellow", PASS: "green"}


def text(result: CheckResult, width: int = _WIDTH) -> str:
    """A table, the gravest cells first, notes, and one line that sums up. One checkpoint is named above the table."""
    page = io.StringIO()
    _print(result, out(page, width))
    return page.getvalue()


def print_check(result: CheckResult) -> None:
    """The same on stdout, as wide as the terminal."""
    _print(result, out())


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
        what = f"{cell.named(result.names)}: {cell.words}: {cell.reason}"
        said.append(f"::{level} title={title}::{_command_data(what)}\n")
    if len(troubles) > MOST_ANNOTATIONS:
        said.append(f"{len(troubles) - MOST_ANNOTATIONS} more are in the job summary\n")
    return "".join([*said, printable(result.summary), "\n"])


def markdown(result: CheckResult) -> str:
    """The whole table for a job summary, one per checkpoint; rows beyond GitHub's size limit are counted."""
    rows = [f"### {escaped(result.summary)}"]
    size, listed = 0, 0
    by_checkpoint: dict[str, list[CheckedCell]] = {}
    for cell in result.lines:
        by_checkpoint.setdefault(cell.named(result.names), []).append(cell)
    for who, cells in by_checkpoint.items():
        if size > SUMMARY_BYTES:
            break
        rows += ["", f"**{escaped(who)}**", "", _HEADS, "|---|---|--:|--:|--:|---|"]
        for cell in cells:
            line = row(map(in_cell, _columns(cell)))
            size += len(line.encode()) + 1
            if size > SUMMARY_BYTES:
                break
            rows.append(line)
            listed += 1
    if listed < len(result.lines):
        rows += ["", f"{len(result.lines) - listed} more cells do not fit here."]
    return "\n".join([*rows, "", *(f"- {escaped(note)}" for note in result.notes)]).rstrip("\n") + "\n"


_HEADS = "| verdict | data set · metric | baseline | current | change | why |"


FORMATS: dict[str, Callable[[CheckResult], str]] = {
    "text": text,
    "json": as_json,
    "junit": junit,
    "github": markdown,
    "markdown": comment,
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
        print_check(result)
    elif name == "json":
        show_json(result.to_dict())
        say(result.summary)
    elif name in ("junit", "markdown"):
        print(FORMATS[name](result), end="")  # noqa: T201 every name in it is printable
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


def _print_plan(plan: Plan, console: Console) -> None:
    shares = [f"{100 * share:g} %" for share in ASSUMED]
    sheet = Sheet(
        "If so many outcomes differ: how often an equally good checkpoint passes, suspects apart, and how many "
        "outcomes would make that 90 %",
        Column("data sets · task · metric", "name"),
        *(Column(head, "figure") for head in (*shares, "measured")),
        Column("outcomes", "prose"),
    )
    for planned in plan.planned:
        prospects = [*map(_prospect, planned.prospects), *([] if planned.is_measured else [NONE])]
        sheet.add(planned.where, *prospects, f"{planned.outcomes:,} outcomes, {planned.allowed:g} allowed")
    sheet.print(console)
    sources = dict.fromkeys(found.source for planned in plan.planned for found in planned.prospects if found.source)
    for line in [*(f"measured: {source}" for source in sources), *plan.notes]:
        console.print(line, soft_wrap=not console.is_terminal)


def _prospect(found: Prospect) -> str:
    needed = "never" if found.outcomes_needed is None else f"{found.outcomes_needed:,}"
    share = [f"at {100 * found.share:.2g} %"] if found.source else []
    return "\n".join([f"{100 * found.pass_chance:.0f} %", needed, *share])


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


def _print(result: CheckResult, console: Console) -> None:
    folder = result.names.folder
    sheet = Sheet(
        f"Checkpoints in {folder}" if folder else "",
        *(Column("verdict"), Column("checkpoint", "name"), Column("data set · metric", "name")),
        *(Column(head, "figure") for head in ("baseline", "current", "change")),
        Column("why", "prose"),
        styles=_COLOURS,
    )
    listed = result.lines
    notes = [*result.notes]
    if len(listed) > _MOST_LISTED:
        listed = [cell for cell in listed if cell.verdict != PASS]
        notes.append(f"{len(result.lines) - len(listed):,} cells that pass are not listed: --format json has them")
    for cell in listed:
        verdict, *more = _columns(cell)
        sheet.add(verdict, cell.named(result.names), *more)
    if listed:
        sheet.print(console)
    for line in [*notes, result.summary]:
        console.print(line, soft_wrap=not console.is_terminal)


def _columns(cell: CheckedCell) -> list[str]:
    values = [_percent(cell.baseline), _percent(cell.current), _change(cell)]
    return [cell.verdict, cell.words, *values, cell.reason]


def _values(cell: CheckedCell) -> str:
    return f"baseline {_percent(cell.baseline)}, current {_percent(cell.current)}, change {_change(cell)} points"


def _percent(value: float) -> str:
    return "–" if math.isnan(value) else f"{100 * value:.2f}"


def _change(cell: CheckedCell) -> str:
    change = 100 * (cell.current - cell.baseline)
    return "–" if math.isnan(change) else f"{change:+.2f}"


def _command_data(words: str) -> str:
    return printable(words).replace("%", "%25")


def _command_property(words: str) -> str:
    return _command_data(words).replace(":", "%3A").replace(",", "%2C")

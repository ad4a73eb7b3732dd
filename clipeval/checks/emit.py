"""A check's result for people and for machines: text, JSON, JUnit XML, GitHub annotations and a Markdown table.

Names in results tables are anybody's: each format neutralises what it would take for markup or control characters.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from clipeval.checks.verdicts import CANNOT_TELL, FAIL, NOT_COMPARABLE, PASS, CheckedCell, CheckResult
from clipeval.console import out, say, show_command, show_json
from clipeval.errors import StoreError, UsageError, suggest
from clipeval.files import write_text
from clipeval.plain import json_text, printable

MOST_ANNOTATIONS = 10
"""GitHub shows no more of a kind per step."""
SUMMARY_BYTES = 1_000_000
"""GitHub refuses a job summary beyond 1 MiB."""
_MOST_LISTED = 1_000
"""Cells of a table for people; of more those that pass are counted."""
_WIDTH = 200
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
    """JUnit XML: a test case per cell. ``fail`` is a failure, ``cannot-tell`` and ``not-comparable`` are errors."""
    suite = ElementTree.Element(
        "testsuite",
        {
            "name": "clipeval check",
            "package": "clipeval",
            "id": "0",
            "hostname": "localhost",
            "timestamp": result.made_at.strftime("%Y-%m-%dT%H:%M:%S"),
            "tests": str(len(result.cells)),
            "failures": str(result.counts[FAIL]),
            "errors": str(result.counts[CANNOT_TELL] + result.counts[NOT_COMPARABLE]),
            "time": "0",
        },
    )
    ElementTree.SubElement(suite, "properties")
    for cell in result.cells:
        case = ElementTree.SubElement(
            suite, "testcase", {"classname": printable(cell.who), "name": printable(cell.where), "time": "0"}
        )
        if cell.verdict != PASS:
            kind = "failure" if cell.verdict == FAIL else "error"
            reason = printable(cell.reason)
            said = ElementTree.SubElement(case, kind, {"type": cell.verdict, "message": reason})
            said.text = f"{printable(_values(cell))}\n{reason}"
    ElementTree.SubElement(suite, "system-out").text = printable("; ".join([result.summary, *result.notes]))
    ElementTree.SubElement(suite, "system-err")
    root = ElementTree.Element("testsuites")
    root.append(suite)
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, "unicode") + "\n"


def github(result: CheckResult) -> str:
    """GitHub annotations of the first ten cells that do not pass: errors for regressions, warnings for the others."""
    troubles = [cell for cell in result.cells if cell.verdict != PASS]
    lines = []
    for cell in troubles[:MOST_ANNOTATIONS]:
        level = "error" if cell.verdict == FAIL else "warning"
        title = _command_property(f"clipeval: {cell.verdict}")
        lines.append(f"::{level} title={title}::{_command_data(f'{cell.who}: {cell.where}: {cell.reason}')}\n")
    if len(troubles) > MOST_ANNOTATIONS:
        lines.append(f"{len(troubles) - MOST_ANNOTATIONS} more are in the job summary\n")
    return "".join([*lines, printable(result.summary), "\n"])


def markdown(result: CheckResult) -> str:
    """The whole table for a job summary; rows beyond GitHub's size limit are counted."""
    lines = [
        f"### {_escaped(result.summary)}\n",
        "| verdict | checkpoint | data set · task · metric | baseline | current | change | why |",
        "|---|---|---|--:|--:|--:|---|",
    ]
    size = 0
    for number, cell in enumerate(result.cells):
        line = "| " + " | ".join(map(_escaped, _columns(cell))) + " |"
        size += len(line.encode()) + 1
        if size > SUMMARY_BYTES:
            lines.append(f"\n{len(result.cells) - number} more cells do not fit here.")
            break
        lines.append(line)
    return "\n".join([*lines, "", *(f"- {_escaped(note)}" for note in result.notes)]) + "\n"


FORMATS: dict[str, Callable[[CheckResult], str]] = {
    "text": text,
    "json": as_json,
    "junit": junit,
    "github": markdown,
}


def require_format(name: str) -> None:
    """Raises UsageError for an unknown format."""
    if name not in FORMATS:
        raise UsageError(f"--format {name}: unknown.{suggest(name, FORMATS)} Formats: {', '.join(FORMATS)}.")


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

    names = {cell.who for cell in result.cells}
    if len(names) == 1:
        console.print(next(iter(names)), soft_wrap=True)
    shown = table()
    shown.add_column("verdict", no_wrap=True)
    for column in (*(["checkpoint"] if len(names) > 1 else []), "data set · task · metric"):
        shown.add_column(column, overflow="fold")
    for column in ("baseline", "current", "change"):
        shown.add_column(column, justify="right", no_wrap=True)
    shown.add_column("why", overflow="fold")
    listed = result.cells
    notes = [*result.notes]
    if len(listed) > _MOST_LISTED:
        listed = [cell for cell in listed if cell.verdict != PASS]
        notes.append(f"{len(result.cells) - len(listed):,} cells that pass are not listed: --format json has them")
    for cell in listed:
        verdict, who, *others = _columns(cell)
        shown.add_row(Text(verdict, style=_COLOURS[cell.verdict]), *([who] if len(names) > 1 else []), *others)
    if listed:
        console.print(shown)
    for line in [*notes, result.summary]:
        console.print(line, soft_wrap=True)


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

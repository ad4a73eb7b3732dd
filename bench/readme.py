"""Commands that the documents show with what they print, run again: ``python -m bench readme``.

    python -m bench readme              those that need no training and no download; says which lines differ
    python -m bench readme --all        the others too, in this folder, in the order in which they stand (after make demo)
    python -m bench readme --write      the shown lines are replaced by what is printed now

A block is what stands behind ``$ `` in an indented or fenced block, up to the next one. It shows all that is printed, or
lines of it where a comment behind the command says so (``# ...``). Results of a demo that is not there are those of
results/nano/seed0, which a demo made.
"""

from __future__ import annotations

import argparse
import difflib
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCUMENTS = ("README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")))
OFFLINE = ("fit", "list", "check", "report", "design", "import")
"""Commands of clipeval that answer from tables alone."""
_SIZE = re.compile(r"[\d.]+ [kMG]B")
"""What depends on more than the table: the pictures in a page."""
_ALIKE = 0.5
_FLAGS = {"E": 0, "i": re.IGNORECASE}


@dataclass(frozen=True)
class Shown:
    """One command of a document. ``first`` and ``last`` are the numbers of its first line of output and of the one behind
    its last; ``selected``: lines of the output, not all of it; ``margin``: what each line has in front."""

    document: str
    command: str
    lines: tuple[str, ...]
    first: int
    last: int
    selected: bool
    margin: str = ""

    @property
    def is_quick(self) -> bool:
        """Whether it needs neither a model nor a network."""
        words = shlex.split(self.command)
        return words[0] == "clipeval" and words[1] in OFFLINE

    def __str__(self) -> str:
        return f"{self.document}:{self.first}: {self.command}"


def shown(document: str, text: str) -> list[Shown]:
    """The commands of a document that stand there with output."""
    found, lines, number = [], text.splitlines(), 0
    while number < len(lines):
        inside, begins = _margin(lines, number), re.match(r"( *)\$ (.*)", lines[number])
        number += 1
        if not begins or not inside:
            continue
        said = begins[2]
        while said.endswith("\\"):
            said = f"{said[:-1]} {lines[number].strip()}"
            number += 1
        first = number
        while number < len(lines) and inside(lines[number]) and not lines[number].lstrip().startswith("$ "):
            number += 1
        last = number
        while last > first and not lines[last - 1].strip():
            last -= 1
        command, comment, _ = said.partition("  # ")
        output = tuple(line[len(begins[1]) :].rstrip() for line in lines[first:last])
        found.append(Shown(document, " ".join(command.split()), output, first, last, bool(comment), begins[1]))
    return [command for command in found if command.lines]


def _margin(lines: list[str], number: int) -> Callable[[str], bool] | None:
    """What is inside the block that a line is in; None outside of blocks."""
    if lines[number].startswith("    "):
        return lambda line: line.startswith("    ") or not line.strip()
    fences = sum(line.lstrip().startswith("```") for line in lines[:number])
    return (lambda line: not line.lstrip().startswith("```")) if fences % 2 else None


def arguments(command: str) -> tuple[list[str], Callable[[str], bool]]:
    """The words of a command, and which lines of its output the ``grep`` behind it leaves."""
    line, _, behind = command.partition(" | ")
    keeps: Callable[[str], bool] = lambda text: True  # noqa: E731
    if behind:
        program, *flags, pattern = shlex.split(behind)
        assert program == "grep", f"{command}: only grep is known behind a command"
        kind = 0
        for flag in "".join(flags).replace("-", ""):
            kind |= _FLAGS[flag]
        keeps = lambda text: re.search(pattern, text, kind) is not None  # noqa: E731
    return shlex.split(line), keeps


def prepare(folder: Path) -> None:
    """Make a folder in which the commands that answer from tables find what they name."""
    for name in ("results", "examples"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "demo").mkdir()
    (folder / "demo" / "results").symlink_to(ROOT / "results" / "nano" / "seed0")


def differences(command: Shown, stdout: str, stderr: str) -> list[str]:
    """Lines that are shown and not printed, or the other way round; where only some are shown, the former."""
    out, err = printed(command, stdout), [line.rstrip() for line in stderr.splitlines()]
    expected, out, err = ([_SIZE.sub("SIZE", line) for line in lines if line] for lines in (command.lines, out, err))
    got = [*out, *err]
    if command.selected:
        rest = iter(got)
        missing = [line for line in expected if line not in got]
        in_order = all(any(line == other for other in rest) for line in expected)
        return [f"- {line}" for line in missing] or ([] if in_order else ["lines stand in another order"])
    answer = list(expected)
    for line in set(err) & set(
        expected
    ):  # a document may show them between the lines of the answer, as a terminal does
        answer.remove(line)
    if answer == out and set(err) <= set(expected):
        return []
    return [line for line in difflib.ndiff(expected, got) if line[0] in "+-"]


def printed(command: Shown, stdout: str) -> list[str]:
    """The lines of stdout that the command's ``grep`` leaves."""
    keeps = arguments(command.command)[1]
    return [line.rstrip() for line in stdout.splitlines() if keeps(line)]


def rewritten(text: str, outputs: dict[Shown, tuple[str, str]]) -> str:
    """A document with what is printed now; of selected lines those that are most like the ones that stand there."""
    lines = text.splitlines()
    for command, (stdout, stderr) in sorted(outputs.items(), key=lambda item: -item[0].first):
        if not differences(command, stdout, stderr):
            continue
        now = [*printed(command, stdout), *map(str.rstrip, stderr.splitlines())]
        if command.selected:
            alike = (difflib.get_close_matches(line, now, 1, _ALIKE) for line in command.lines)
            now = [match[0] for match in alike if match]
        now = re.sub(r"\n{3,}", "\n\n", "\n".join(now).strip("\n")).split("\n")
        lines[command.first : command.last] = [f"{command.margin}{line}".rstrip() for line in now]
    return "\n".join(lines) + "\n"


def _commands() -> Iterator[Shown]:
    for document in DOCUMENTS:
        yield from shown(document, (ROOT / document).read_text("utf-8"))


def main(*words: str) -> None:
    """Run the commands, and say what differs."""
    parser = argparse.ArgumentParser(prog="python -m bench readme", description=(__doc__ or "").split(":")[0])
    parser.add_argument("--all", action="store_true", help="also what trains or measures, in this folder")
    parser.add_argument("--write", action="store_true", help="replace the shown lines by what is printed now")
    given = parser.parse_args(words)
    outputs: dict[Shown, tuple[str, str]] = {}
    with tempfile.TemporaryDirectory() as name:
        prepare(Path(name))
        for command in _commands():
            words = arguments(command.command)[0]
            module = {"clipeval": "clipeval", "clipeval-train": "clipeval_train"}.get(words[0])
            if module is None or not (command.is_quick or given.all):
                print(f"left out  {command}")
                continue
            folder = name if command.is_quick else ROOT
            done = subprocess.run(
                [sys.executable, "-m", module, *words[1:]], cwd=folder, capture_output=True, text=True
            )
            outputs[command] = done.stdout, done.stderr
            found = differences(command, *outputs[command])
            print(f"{'differs' if found else 'equal':<10}{command}", *found, sep="\n    ", flush=True)
    if given.write:
        for document in DOCUMENTS:
            file = ROOT / document
            mine = {command: output for command, output in outputs.items() if command.document == document}
            file.write_text(rewritten(file.read_text("utf-8"), mine), "utf-8")

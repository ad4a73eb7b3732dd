"""What a person sees: rich on a terminal, plain lines elsewhere. Progress goes to stderr, data to stdout."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO

from clipeval.names import SEPARATOR, Names
from clipeval.plain import json_text, masked, printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress
    from rich.text import Text

_PLAIN_INTERVAL_SECONDS = 30.0
PIPE_WIDTH = 200
"""Of tables where there is no terminal: wide enough for any."""
_WORTH_TELLING_SECONDS = 60
_STATE_WIDTH = 28
"""Of what stands behind a bar, which has most often room in it, so that bars stay as they are."""
_LONGEST = 4000
"""Characters of a message; what is longer quotes something that is no name."""
_record: ContextVar[tuple[list[Any], int] | None] = ContextVar("record", default=None)
"""Where what is shown goes instead of stdout, and for which width it is made."""


def say(message: object) -> None:
    """One line for the person, on stderr, made harmless by ``printable``. Of a very long one the middle is left out."""
    if sys.stderr is None:  # print would take stdout instead
        return
    line = printable(message)
    if len(line) > _LONGEST:
        line = f"{line[: _LONGEST // 2]} [{len(line) - _LONGEST:,} characters] {line[-_LONGEST // 2 :]}"
    print(line, file=sys.stderr, flush=True)  # noqa: T201


@contextmanager
def recorded(width: int) -> Iterator[list[Any]]:
    """Inside, what ``show`` and the console of ``out`` are given for stdout is kept in the list, as wide as is said,
    and printed nowhere: lines as text, tables as rich's."""
    items: list[Any] = []
    token = _record.set((items, width))
    try:
        yield items
    finally:
        _record.reset(token)


def show(line: object) -> None:
    """One line of a command's answer, on stdout, made harmless by ``printable``."""
    if record := _record.get():
        record[0].append(printable(line))
        return
    print(printable(line), flush=True)  # noqa: T201


def show_json(document: Any) -> None:
    """A document for programs, on stdout: valid JSON in any encoding, whatever names hold; secrets are masked."""
    ascii_only = not (sys.stdout.encoding or "utf-8").lower().startswith("utf")
    print(json_text(masked(document), ascii_only=ascii_only), flush=True)  # noqa: T201


def show_command(command: str) -> None:
    """Lines for the machine that runs this one, such as annotations for GitHub: the only ones that it shall obey."""
    getattr(sys.stdout, "write_command", sys.stdout.write)(command)


def out(file: TextIO | None = None, width: int | None = None) -> Console:
    """The console of tables, on stdout: as wide as the terminal, in a pipe as ``COLUMNS`` says or wide
    enough for any table.

    Every string in them, and every string printed, is taken for text that anybody may have chosen: no markup, no emoji
    codes, and made harmless by ``printable``. What is meant to have a style or several lines is a rich ``Text``.
    """
    from rich.console import Console
    from rich.text import Text

    record = _record.get() if file is None else None

    class Harmless(Console):
        def render_str(
            self, text: str, *, style: Any = "", justify: Any = None, overflow: Any = None, **_: Any
        ) -> Text:
            return Text(printable(text), style=style, justify=justify, overflow=overflow)

        def print(self, *objects: Any, **how: Any) -> None:
            if record:
                record[0].extend(objects)
            else:
                super().print(*objects, **how)

    if record:
        width = record[1]
    width = width or _width(file or sys.stdout)
    height = 25 if width else None  # rich takes 80 columns of a dumb terminal where it is not told both
    return Harmless(file=file, highlight=False, width=width, height=height)


def show_lines(texts: Iterable[str]) -> None:
    """Lines of a command's answer, broken between words on a terminal."""
    console = out()
    for text in texts:
        console.print(text, soft_wrap=not console.is_terminal)


def _width(file: TextIO) -> int | None:
    """Of the terminal, where rich does not know it; elsewhere wide enough for any table, or what ``COLUMNS`` says."""
    if not file.isatty():
        asked = os.environ.get("COLUMNS", "")
        return int(asked) if asked.isdecimal() and int(asked) else PIPE_WIDTH
    if os.environ.get("TERM", "").lower() not in ("dumb", "unknown"):
        return None
    try:
        return os.get_terminal_size(file.fileno()).columns or None
    except (OSError, ValueError):
        return None


def live() -> Progress:
    """Bars on stderr, to be started. Their tasks have a ``description``, which is cut where the line ends, and a field
    ``state``; a total of None is work of unknown length."""
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.table import Column

    what = Column(ratio=3, no_wrap=True, overflow="ellipsis")
    description = TextColumn("{task.description}", markup=False, table_column=what)
    as_wide = Column(no_wrap=True, overflow="ellipsis", min_width=_STATE_WIDTH)
    state = TextColumn("{task.fields[state]}", markup=False, table_column=as_wide)
    bar = BarColumn(bar_width=None, table_column=Column(ratio=2))
    columns = SpinnerColumn(), description, bar, state, TimeElapsedColumn()
    kind = Progress
    if in_notebook():
        from clipeval.notebook import NotebookProgress as kind
    return kind(*columns, console=out(sys.stderr), transient=True, expand=True)


def duration(seconds: float) -> str:
    """``40 s``, ``12 min``, ``3 h 20 min``, ``2 d 3 h``: two units at most."""
    minutes, hours = round(seconds / 60), round(seconds / 3600)
    if seconds < _WORTH_TELLING_SECONDS:
        return f"{seconds:.0f} s"
    if minutes < 60:
        return f"{minutes} min"
    if hours < 48:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{hours // 24} d {hours % 24} h"


def is_watched() -> bool:
    """Whether stderr is a terminal, or a cell of a notebook."""
    return in_notebook() or (sys.stderr is not None and sys.stderr.isatty())


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook, which shows more than text."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")


class RunProgress:
    """Progress of a run: how many cells are done and how long the rest takes, how much of the present stretch of work
    and how fast, and what a task does that embeds nothing.

    On a terminal one bar each; elsewhere one line per finished cell and at most one every 30 seconds between.
    """

    def __init__(self, cells: int, quiet: bool = False) -> None:
        """``cells`` are those that are not known one by one yet."""
        self.names = Names()
        """How checkpoints are called in bars."""
        self._cells = cells
        self._done = 0
        self._work = self._work_done = 0.0
        self._began: float | None = None
        self._quiet = quiet
        self._label = self._then = ""
        self._items = 0
        self._fresh = 0
        self._total = 0
        self.rate = 0.0
        """Items encoded per second in this stretch; what came from the store does not count."""
        self._started = self._last_line = time.monotonic()
        self._live = live() if not quiet and is_watched() else None
        if self._live:
            self._bars = {
                name: self._live.add_task("", total=None, visible=False, state="")
                for name in ("run", "stretch", "beside")
            }

    def __enter__(self) -> RunProgress:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def wait(self, text: str) -> None:
        """Something of unknown length is done before the next stretch, such as loading a library."""
        self._show("stretch", text, None)

    def start(self, label: str, items: int) -> None:
        """A new stretch of work: embedding ``items`` images or texts."""
        self._label, self._then, self._total, self._items, self._fresh, self.rate = label, "", items, 0, 0, 0.0
        self._started = time.monotonic()
        if self._began is None:
            self._began = self._started
        self._show("stretch", self._in_short(label), items)

    def then(self, text: str) -> None:
        """What comes when all of this stretch is finished."""
        self._then = text

    def advance(self, items: int, stored: int) -> None:
        """``items`` are finished, ``stored`` of them because they were in the store."""
        self._items += items
        self._fresh += items - stored
        self.rate = self._fresh / max(time.monotonic() - self._started, 1e-9)
        left = duration((self._total - self._items) / max(self.rate, 1e-9)) if self._fresh else ""
        speed = f"{self.rate:,.0f}/s" if self._fresh else ""
        if self._live:
            if self._items < self._total:
                told = f"{speed}, {left} left" if speed else ""
                self._live.update(self._bars["stretch"], completed=self._items, state=told)
            else:
                self._show("stretch", self._in_short(self._label), None, state=self._then, visible=bool(self._then))
        elif self._fresh and self._is_time():
            self.line(f"{self._where(self._label)}: {self._items:,} of {self._total:,}, {speed}, {left} left")

    def work(self, label: str, text: str, done: int = 0, total: int | None = None) -> None:
        """A task works on what is embedded, with ``done`` of ``total`` steps behind it where it can say so."""
        if self._live:
            self._show("beside", self._in_short(label), total, done, text)
            if self._items >= self._total:
                self._live.update(self._bars["stretch"], visible=False)
        elif self._is_time():
            self.line(f"{self._where(label)}: {text}")

    def expect(self, cells: int, instead_of: int, work: float) -> None:
        """``cells`` are known now, ``instead_of`` as many that were guessed; what they take in any unit of work."""
        self._cells += cells - instead_of
        self._work += work
        self._show_run()

    def finish_cell(self, text: str, work: float = 0.0, *, measured: bool = True, cells: int = 1) -> None:
        """A cell with so much ``work`` is finished, or several at once; ``text`` says how it ended."""
        self._done += cells
        if measured:
            self._work_done += work
        else:  # it says nothing of how fast the others will be
            self._work -= work
        left = self._time_left()
        self.line(f"[{self._done}/{self._cells}] {text}{f', {left} left of the run' if left else ''}")
        self._show_run()
        if self._live:
            self._live.update(self._bars["beside"], visible=False)

    def _time_left(self) -> str:
        """What the rest of the work will take at the speed so far, for people; empty below a minute."""
        if self._began is None or not self._work_done:
            return ""
        seconds = (time.monotonic() - self._began) / self._work_done * (self._work - self._work_done)
        return f"about {duration(seconds)}" if seconds >= _WORTH_TELLING_SECONDS else ""

    def line(self, text: str) -> None:
        """A line that stays."""
        self._last_line = time.monotonic()
        if self._quiet:
            return
        if self._live:
            self._live.console.print(text, soft_wrap=True)
        else:
            say(text)

    def _is_time(self) -> bool:
        """Whether nothing was said for so long that people wonder."""
        return not self._quiet and time.monotonic() - self._last_line > _PLAIN_INTERVAL_SECONDS

    def _where(self, label: str) -> str:
        return f"[{self._done + 1}/{self._cells}] {label}"

    def _in_short(self, label: str) -> str:
        """What changes most in front: the end is cut where there is no room."""
        model, separator, rest = label.partition(SEPARATOR)
        return f"{rest}{separator}{self.names[model]}"

    def _show_run(self) -> None:
        left = self._time_left()
        state = f"{self._done:,} of {self._cells:,}{f', {left} left' if left else ''}"
        self._show("run", "cells", self._cells or None, self._done, state)

    def _show(
        self, bar: str, text: str, total: int | None, done: int = 0, state: str = "", *, visible: bool = True
    ) -> None:
        """One bar as it is now. Its clock starts anew where it is about something else."""
        if not self._live:
            return
        number, text = self._bars[bar], printable(text)
        task = self._live.tasks[number]
        if text != task.description:
            self._live.reset(number)
        self._live.update(number, description=text, completed=done, state=state, visible=visible)
        task.total = total  # update takes None for "as it was"

"""What a person sees: rich on a terminal, plain lines elsewhere. Progress goes to stderr, data to stdout."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

_PLAIN_INTERVAL_SECONDS = 30.0
_PIPE_WIDTH = 200


def say(message: str) -> None:
    """One line for the person, on stderr."""
    print(message, file=sys.stderr, flush=True)  # noqa: T201


def out() -> Console:
    """The console of tables, on stdout: as wide as the terminal, or wide enough for any table in a pipe."""
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else _PIPE_WIDTH)


class RunProgress:
    """Progress of a run: cell k of n, images per second, time left.

    On a terminal one live line; elsewhere one line per finished cell and at most one every 30 seconds between.
    """

    def __init__(self, cells: int, quiet: bool = False) -> None:
        self._cells = cells
        self._done = 0
        self._quiet = quiet
        self._label = ""
        self._items = 0
        self._fresh = 0
        self._total = 0
        self.rate = 0.0
        """Items encoded per second in this stretch; what came from the store does not count."""
        self._started = self._last_line = time.monotonic()
        self._live = self._bar = None
        if not quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

            self._live = Progress(
                SpinnerColumn(),
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.fields[speed]}"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self._bar = self._live.add_task("", total=None, speed="")

    def __enter__(self) -> RunProgress:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def start(self, label: str, items: int) -> None:
        """A new stretch of work: embedding ``items`` images or texts."""
        self._label, self._total, self._items, self._fresh, self.rate = label, items, 0, 0, 0.0
        self._started = time.monotonic()
        if self._live and self._bar is not None:
            self._live.reset(self._bar, total=items, description=self._where(), speed="")

    def advance(self, items: int, stored: int) -> None:
        """``items`` are finished, ``stored`` of them because they were in the store."""
        self._items += items
        self._fresh += items - stored
        self.rate = self._fresh / max(time.monotonic() - self._started, 1e-9)
        speed = f"{self.rate:,.0f}/s" if self._fresh else ""
        if self._live and self._bar is not None:
            self._live.update(self._bar, completed=self._items, speed=speed)
        elif not self._quiet and self._fresh and time.monotonic() - self._last_line > _PLAIN_INTERVAL_SECONDS:
            left = (self._total - self._items) / max(self.rate, 1e-9)
            self.line(f"{self._where()}: {self._items:,} of {self._total:,}, {speed}, {left:,.0f} s left")

    def finish_cell(self, text: str) -> None:
        """A cell is finished; ``text`` says how it ended."""
        self._done += 1
        self.line(f"[{self._done}/{self._cells}] {text}")

    def line(self, text: str) -> None:
        """A line that stays."""
        self._last_line = time.monotonic()
        if self._quiet:
            return
        if self._live:
            self._live.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            say(text)

    def _where(self) -> str:
        return f"[{self._done + 1}/{self._cells}] {self._label}"

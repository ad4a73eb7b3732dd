"""What results look like in print and in a notebook: the tables that their command shows on a terminal."""

from __future__ import annotations

import io
import shutil
import sys
from collections.abc import Iterable
from html import escape
from importlib import import_module
from typing import Any, ClassVar

from clipeval.console import PIPE_WIDTH, out, recorded
from clipeval.plain import printable

_UNLIMITED = 10_000
_MOST_ROWS = 200
"""Of a table in a notebook; more are counted."""


class Shown:
    """A result with a short ``repr``. ``print`` writes what its command writes, and a notebook shows the same as HTML.

    ``printer`` is the address ``module:function`` of what prints it on the terminal, as text: it stands above.
    """

    printer: ClassVar[str]

    def __str__(self) -> str:
        width = shutil.get_terminal_size().columns if sys.stdout is not None and sys.stdout.isatty() else PIPE_WIDTH
        page = io.StringIO()
        console = out(page, width)
        for item in self._printed(width):
            console.print(item, soft_wrap=isinstance(item, str))
        return "\n".join(line.rstrip() for line in page.getvalue().strip("\n").split("\n"))

    def _repr_html_(self) -> str:
        return "\n".join(map(_html, self._printed(_UNLIMITED)))

    def _printed(self, width: int) -> list[Any]:
        module, _, function = self.printer.partition(":")
        with recorded(width) as items:
            getattr(import_module(module), function)(self)
        return items


def _html(item: Any) -> str:
    return f'<div style="max-width: 70em">{_text(item)}</div>' if isinstance(item, str) else _table(item)


def _table(sheet: Any) -> str:
    """A sheet of ``clipeval.tables`` with all its columns: a notebook gives it its own look."""
    aligned = [f' style="text-align: {"right" if column.kind == "figure" else "left"}"' for column in sheet.columns]

    def line(tag: str, cells: Iterable[str]) -> str:
        return "".join(f"<{tag}{how}>{_text(cell)}</{tag}>" for how, cell in zip(aligned, cells, strict=True))

    head = line("th", (column.head for column in sheet.columns))
    body = "".join(f"<tr>{line('td', row)}</tr>\n" for row in sheet.rows[:_MOST_ROWS])
    title = f"<caption style='text-align: left'>{_text(sheet.title)}</caption>" if sheet.title else ""
    hidden = len(sheet.rows) - _MOST_ROWS
    below = [*([f"{hidden:,} more rows"] if hidden > 0 else []), *sheet.legend]
    page = f"<table>{title}<thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table>"
    return page + "".join(f"<div>{_text(text)}</div>" for text in below)


def _text(text: str) -> str:
    return "<br>".join(escape(printable(line)) for line in text.split("\n"))

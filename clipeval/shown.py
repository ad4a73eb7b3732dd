"""What results look like in print and in a notebook: the tables that their command shows on a terminal."""

from __future__ import annotations

import io
import shutil
import sys
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
    from rich.table import Table

    if isinstance(item, Table):
        return _table(item)
    if hasattr(item, "rows") and hasattr(item, "legend"):  # a Sheet
        return _sheet(item)
    if isinstance(item, str):
        return f'<div style="max-width: 70em">{escape(printable(item))}</div>'
    from clipeval.notebook import in_html

    return in_html([item], PIPE_WIDTH)["text/html"]


def _sheet(sheet: Any) -> str:
    """A sheet of ``clipeval.tables`` with all its columns."""
    from rich.table import Table

    table = Table(title=printable(sheet.title))
    for column in sheet.columns:
        table.add_column(column.head, justify="right" if column.kind == "figure" else "left")
    for row in sheet.rows:
        table.add_row(*row)
    return _table(table) + "".join(f"<div>{escape(line)}</div>" for line in sheet.legend)


def _table(table: Any) -> str:
    """A rich table as one of HTML: a notebook gives it its own look."""
    aligned = [f' style="text-align: {column.justify}"' for column in table.columns]
    head = "".join(f"<th{how}>{_cell(column.header)}</th>" for column, how in zip(table.columns, aligned, strict=True))
    rows = list(zip(*(column.cells for column in table.columns), strict=True))
    body = "".join(
        "<tr>" + "".join(f"<td{how}>{_cell(cell)}</td>" for cell, how in zip(row, aligned, strict=True)) + "</tr>\n"
        for row in rows[:_MOST_ROWS]
    )
    title = f"<caption style='text-align: left'>{_cell(table.title)}</caption>" if table.title else ""
    more = f"<div>{len(rows) - _MOST_ROWS:,} more rows</div>" if len(rows) > _MOST_ROWS else ""
    return f"<table>{title}<thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table>{more}"


def _cell(cell: Any) -> str:
    from rich.style import Style
    from rich.text import Text

    text = cell if isinstance(cell, Text) else Text(printable(cell))
    shown = escape(text.plain).replace("\n", "<br>")
    style = Style.parse(text.style) if isinstance(text.style, str) else text.style
    look = style.get_html_style()
    return f'<span style="{escape(look)}">{shown}</span>' if look else shown

"""Tables: a sheet that fits into any width, or is Markdown or tab-separated values, and numbers as people read them."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from clipeval import console, markdown
from clipeval.cached import KINDS, Kept
from clipeval.console import show
from clipeval.drawing import Column, Drawing, Row, blocks, forms, harmless, wrapped
from clipeval.names import SEPARATOR
from clipeval.plain import printable, quoted

NONE = "–"
_MOST_FIGURES = 6


class Sheet:
    """A table of texts that is drawn as wide as there is room, and never loses a name, a value or part of a number.

    A name that all lines share is said once, in the title. Where there is no room names stand above their lines, then
    columns leave, intervals get lines of their own, and at last each line becomes a block. ``styles`` has a style for
    some texts. A cell may have several lines.
    """

    def __init__(self, title: str, *columns: Column, styles: Mapping[str, str] | None = None) -> None:
        self.title = title
        self.columns = columns
        self.rows: list[Row] = []
        self.legend: list[str] = []
        """Sentences below it, which explain its words."""
        self._styles = styles or {}

    def add(self, *cells: str) -> None:
        """A line, a text for each column."""
        assert len(cells) == len(self.columns)
        self.rows.append(tuple(map(harmless, cells)))

    def print(self, to: Console | None = None) -> None:
        """Draw it on a console, by default on stdout."""
        (to or console.out()).print(self, soft_wrap=True)

    def __rich_console__(self, to: Console, options: ConsoleOptions) -> RenderResult:
        yield from self.lines(options.max_width)

    def lines(self, width: int) -> list[Text]:
        """What is drawn on ``width`` columns. Only a name may be longer."""
        title, columns, rows = self._said_once()
        head = [Text(line, "italic") for line in wrapped(printable(title), width)]
        if not rows:
            return head
        measured: dict[tuple[int, bool], int] = {}
        for form in forms(columns):
            drawing = Drawing(columns, rows, form, self._styles, measured)
            if body := drawing.lines(width):
                return [*head, *body, *self._explained(drawing.out, width)]
        return [*head, *blocks(columns, rows, self._styles, width), *self._explained([], width)]

    def markdown(self) -> str:
        """Under its title a table as GitHub's Markdown has it, then the legend."""
        title, columns, rows = self._said_once()
        table = markdown.table([c.words for c in columns], [c.kind == "figure" for c in columns], rows) if rows else ""
        legend = "\n".join(f"- {markdown.escaped(sentence)}" for sentence in self.legend)
        return "\n\n".join(filter(None, [title and f"**{markdown.escaped(title.strip())}**", table, legend]))

    def tsv(self) -> str:
        """A line of heads and one for each of its lines, all columns with tabs between; cells that hold quotes are in
        quotes. But for figures, what a spreadsheet would take for a formula is ``quoted``."""
        page = io.StringIO()
        writer = csv.writer(page, "excel-tab", lineterminator="\n")
        writer.writerow(column.words for column in self.columns)
        for line in self.rows:
            texts = zip(self.columns, ("; ".join(text.split("\n")) for text in line), strict=True)
            writer.writerow(text if column.kind == "figure" else quoted(text) for column, text in texts)
        return page.getvalue().rstrip("\n")

    def _explained(self, out: Sequence[str], width: int) -> list[Text]:
        """The legend, but for columns that are left out."""
        kept = [sentence for sentence in self.legend if not sentence.startswith(tuple(f"{head}:" for head in out))]
        return [Text(line, "dim") for sentence in kept for line in wrapped(printable(sentence), width)]

    def _said_once(self) -> tuple[str, list[Column], list[Row]]:
        """The title with the names that all lines share, and the columns that say something else of any."""
        names = [place for place, column in enumerate(self.columns) if column.kind == "name"]
        same = [place for place in names if len({row[place] for row in self.rows}) == 1]
        same = same[:-1] if same == names else same
        said = SEPARATOR.join(self.rows[0][place] for place in same)
        empty = [
            place
            for place, column in enumerate(self.columns)
            if column.kind != "name" and all(row[place] in ("", NONE) for row in self.rows) and column.leaves
        ]
        kept = [place for place in range(len(self.columns)) if place not in (*same, *empty)]
        rows = [tuple(row[place] for place in kept) for row in self.rows]
        return ": ".join(filter(None, (self.title, said))), [self.columns[place] for place in kept], rows


def number(value: Any, digits: int = 4) -> str:
    """A number with so many digits behind the point; a dash when unknown."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return NONE
    return f"{value:.{digits}f}" if isinstance(value, float) else str(value)


def human(value: Any, unit: str = "") -> str:
    """A large number with a metric suffix: 12.8B, 151M; a dash when unknown."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return NONE
    for size, suffix in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.4g}{suffix}{unit}"
    return f"{value:.4g}{unit}"


def significant(value: float, figures: int) -> str:
    """So many significant figures, trailing zeros kept; a dash when unknown."""
    return NONE if math.isnan(value) else f"{value:#.{figures}g}".rstrip(".")


def estimate(value: float, low: float, high: float, *, ratio: bool = False) -> str:
    """``-0.16 [-0.28, -0.05]``: as many decimals as show two figures of half the interval, six figures at most.

    A ``ratio`` may have an interval over orders of magnitude: there each number has two figures at least. Without an
    interval three figures are shown.
    """
    if math.isnan(value):
        return NONE
    if not math.isfinite(low) or not math.isfinite(high):
        return significant(value, 3)
    figures = [value, low, high]
    half = (high - low) / 2
    most = _MOST_FIGURES - 1 - max(_magnitude(figure) for figure in figures)
    decimals = min(1 - _magnitude(half), most) if half > 0 else most
    far = not ratio and not _is_near(max(map(abs, figures)))
    shown = [
        _decimal(figure, max(decimals, 1 - _magnitude(figure)), not _is_near(figure))
        if ratio
        else _decimal(figure, decimals, far)
        for figure in figures
    ]
    return f"{shown[0]} [{shown[1]}, {shown[2]}]"


def _magnitude(value: float) -> int:
    return math.floor(math.log10(abs(value))) if value and math.isfinite(value) else 0


def _is_near(value: float) -> bool:
    """Whether a number is written without an exponent."""
    return value == 0 or 1e-4 <= abs(value) < 1e6


def _decimal(value: float, decimals: int, far: bool) -> str:
    """Rounded to so many decimals, with an exponent where it is ``far``."""
    if far and value:
        return f"{value:.{max(_magnitude(value) + decimals, 0)}e}"
    return f"{round(value, decimals) + 0.0:.{max(decimals, 0)}f}"


def print_cache(folder: str, found: Sequence[Kept], verb: str) -> None:
    """What of the cache in ``folder`` was ``found``, largest first."""
    sheet = Sheet(
        "", Column("kind", "name"), Column("size", "figure"), Column("files", "figure"), Column("what", "prose")
    )
    for kept in sorted(found, key=lambda kept: -kept.bytes):
        if kept.files:
            sheet.add(kept.kind, human(float(kept.bytes), "B"), f"{kept.files:,}", KINDS[kept.kind])
    if sheet.rows:
        sheet.print()
    show(f"{human(float(sum(kept.bytes for kept in found)), 'B')} {verb} in {folder}")

"""Tables on the terminal: a sheet that fits into any width, and numbers as people read them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import Any, Literal

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from clipeval import console
from clipeval.cached import KINDS, Kept
from clipeval.console import show
from clipeval.names import SEPARATOR
from clipeval.plain import printable

NONE = "–"
_INDENT = 2
_PROSE = 30
"""Columns below which sentences stand under their line."""
_MOST_FIGURES = 6


@dataclass(frozen=True)
class Column:
    """One column of a sheet. A ``name`` says what a line is about and is shown whole at any width, a ``figure`` stands
    at the right, ``prose`` is broken between words. The higher ``leaves``, the sooner it is left out where there is no
    room; 0 is never left out."""

    head: str
    kind: Literal["name", "word", "figure", "prose"] = "word"
    leaves: int = 0


@dataclass(frozen=True)
class _Form:
    """One way to draw a sheet: so many names beside the figures, and the others above their lines; heads in several
    lines; sentences below their line; without columns that leave at ``least``; intervals below their value."""

    names: int = 9
    gap: int = 3
    heads: bool = False
    below: bool = False
    least: int = 0
    stacked: bool = False


class Sheet:
    """A table of texts that is drawn as wide as there is room, and never loses a name, a value or part of a number.

    A name that all lines share is said once, in the title. Where there is no room names stand above their lines, then
    columns leave, intervals get lines of their own, and at last each line becomes a block. ``styles`` has a style for
    some texts. A cell may have several lines.
    """

    def __init__(self, title: str, *columns: Column, styles: Mapping[str, str] | None = None) -> None:
        self.title = title
        self.columns = columns
        self.rows: list[tuple[str, ...]] = []
        self.legend: list[str] = []
        """Sentences below it, which explain its words."""
        self._styles = styles or {}

    def add(self, *cells: str) -> None:
        """A line, a text for each column."""
        assert len(cells) == len(self.columns)
        self.rows.append(tuple("\n".join(map(printable, cell.split("\n"))) for cell in cells))

    def print(self, to: Console | None = None) -> None:
        """Draw it on a console, by default on stdout."""
        to = to or console.out()
        for line in self.lines(to.width):
            to.print(line, soft_wrap=True)

    def lines(self, width: int) -> list[Text]:
        """What is drawn on ``width`` columns. Only a name may be longer."""
        title, columns, rows = self._said_once()
        drawings = (_Drawing(columns, rows, form, self._styles).lines(width) for form in _forms(columns))
        body = next(filter(None, drawings), None) or _blocks(columns, rows, self._styles, width)
        head = [Text(line, "italic") for line in _wrapped(title, width)]
        legend = [Text(line, "dim") for sentence in self.legend for line in _wrapped(sentence, width)]
        return [*head, *body, *legend]

    def _said_once(self) -> tuple[str, list[Column], list[tuple[str, ...]]]:
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


def _forms(columns: Sequence[Column]) -> Iterator[_Form]:
    """From the widest to the narrowest."""
    yield _Form()
    yield _Form(gap=2, heads=True)
    for least in (0, *sorted({column.leaves for column in columns if column.leaves}, reverse=True)):
        yield _Form(1, 2, heads=True, below=True, least=least)
    yield _Form(1, 2, heads=True, below=True, least=1, stacked=True)
    yield _Form(0, 2, heads=True, below=True, least=1)
    yield _Form(0, 2, heads=True, below=True, least=1, stacked=True)


class _Drawing:
    """A sheet in one form."""

    def __init__(
        self, columns: Sequence[Column], rows: Sequence[tuple[str, ...]], form: _Form, styles: Mapping[str, str]
    ) -> None:
        self._columns, self._rows, self._form, self._styles = columns, rows, form, styles
        stay = [place for place, column in enumerate(columns) if not 0 < form.least <= column.leaves]
        names = [place for place in stay if columns[place].kind == "name"]
        self._above = names[: max(len(names) - form.names, 0)]
        self._below = [place for place in stay if columns[place].kind == "prose"] if form.below else []
        self._beside = [place for place in stay if place not in (*self._above, *self._below)]
        self._out = [column.head for place, column in enumerate(columns) if place not in stay]
        self._indent = " " * (1 + (_INDENT if self._above else 0))

    def lines(self, width: int) -> list[Text]:
        """Nothing where ``width`` is not enough."""
        widths = {place: self._width(place) for place in self._beside}
        prose = [place for place in self._beside if self._columns[place].kind == "prose"]
        room = width - len(self._indent) - sum(widths.values()) - self._form.gap * (len(widths) - 1)
        for place in prose:
            natural = widths[place]
            widths[place] = max(min(natural, _PROSE), min(natural, natural + room))
            room += natural - widths[place]
        if room < 0 and self._form.names == 1:
            for place in (place for place in self._beside if self._columns[place].kind == "name"):
                shorter = max(self._usual(place), widths[place] + room)
                room += widths[place] - shorter
                widths[place] = shorter
        return self._drawn(widths, width) if room >= 0 else []

    def _usual(self, place: int) -> int:
        """What three of four names need: a longer one gets a line of its own."""
        lengths = sorted(cell_len(row[place]) for row in self._rows)
        return max(lengths[(3 * len(lengths) - 1) // 4], cell_len(self._columns[place].head))

    def _width(self, place: int) -> int:
        column = self._columns[place]
        longest = max(map(cell_len, column.head.split() if self._form.heads else [column.head]), default=0)
        return max([longest, *(cell_len(line) for row in self._rows for line in self._cell(row, place))])

    def _cell(self, row: tuple[str, ...], place: int) -> list[str]:
        return _stacked(row[place]) if self._form.stacked else row[place].split("\n")

    def _drawn(self, widths: Mapping[int, int], width: int) -> list[Text]:
        heads = {place: _wrapped(self._columns[place].head, widths[place]) or [""] for place in self._beside}
        tallest = max(map(len, heads.values()), default=1)
        heads = {place: [*[""] * (tallest - len(head)), *head] for place, head in heads.items()}
        rule = sum(widths.values()) + self._form.gap * (len(widths) - 1) + len(self._indent) - 1
        lines = [*self._line(heads, widths, lambda _: "bold"), Text(f" {'─' * rule}")] if widths else []
        groups: dict[tuple[str, ...], list[tuple[str, ...]]] = {}
        for row in self._rows:
            groups.setdefault(tuple(row[place] for place in self._above), []).append(row)
        in_one_line = all(cell_len(SEPARATOR.join(names)) < width for names in groups)
        before: tuple[str, ...] = ()
        for names, rows in groups.items():
            lines += _headings((SEPARATOR.join(names),) if in_one_line and names else names, before)
            before = names
            for row in rows:
                cells = {place: self._fitted(row, place, widths[place]) for place in self._beside}
                for place in self._beside:
                    if self._columns[place].kind == "name" and cell_len(row[place]) > widths[place]:
                        lines.append(Text(f"{self._indent}{row[place]}"))
                        cells[place] = [""]
                if any(map(any, cells.values())):
                    lines += self._line(cells, widths, self._style)
                for place in self._below:
                    indent = f"{self._indent}  "
                    lines += [Text(f"{indent}{line}", "dim") for line in _wrapped(row[place], width - len(indent))]
        if self._out:
            lines += [Text(line, "dim") for line in _wrapped(f"No room here for: {', '.join(self._out)}", width)]
        return lines

    def _fitted(self, row: tuple[str, ...], place: int, width: int) -> list[str]:
        if self._columns[place].kind == "prose":
            return _wrapped(row[place], width)
        return self._cell(row, place)

    def _style(self, text: str) -> str:
        return self._styles.get(text, "")

    def _line(
        self, cells: Mapping[int, list[str]], widths: Mapping[int, int], style: Callable[[str], str]
    ) -> list[Text]:
        """A line of the table, which has as many lines as its tallest cell."""
        lines = []
        for number in range(max(map(len, cells.values()), default=0)):
            line = Text(self._indent)
            for count, place in enumerate(self._beside):
                text = cells[place][number] if number < len(cells[place]) else ""
                blank = " " * (widths[place] - cell_len(text))
                right = self._columns[place].kind == "figure"
                line.append(f"{' ' * self._form.gap * bool(count)}{blank * right}")
                line.append(text, style(text) or None).append(blank * (not right))
            line.rstrip()
            lines.append(line)
        return lines


def _blocks(
    columns: Sequence[Column], rows: Sequence[tuple[str, ...]], styles: Mapping[str, str], width: int
) -> list[Text]:
    """Each line as a block: its names, then a line per value."""
    lines: list[Text] = []
    before: tuple[str, ...] = ()
    stay = [place for place, column in enumerate(columns) if column.kind != "name" and not column.leaves]
    head = max((cell_len(columns[place].head) for place in stay), default=0)
    for row in rows:
        names = tuple(row[place] for place, column in enumerate(columns) if column.kind == "name")
        lines += _headings(names, before)
        before = names
        indent = " " * (1 + 2 * len(names))
        for place in stay:
            value = row[place].split("\n")
            if not any(value):
                continue
            title = f"{indent}{columns[place].head}"
            beside = columns[place].kind != "prose" and max(map(cell_len, value)) <= width - len(indent) - head - 2
            if beside:
                for number, text in enumerate(value):
                    label = title if number == 0 else ""
                    pad = " " * (len(indent) + head + 2 - cell_len(label))
                    lines.append(Text(f"{label}{pad}").append(text, styles.get(text)))
                continue
            room = width - len(indent) - 2
            parts = value if columns[place].kind == "figure" else [part for v in value for part in _wrapped(v, room)]
            fits = max(map(cell_len, parts)) <= room
            lines += [Text(title), *(Text(f"{indent}  {v}") for v in (parts if fits else _stacked(row[place])))]
    return lines


def _wrapped(text: str, width: int) -> list[str]:
    """Lines that are broken between words only; made harmless, as each begins a line."""
    found = wrap(text, max(width, 1), break_long_words=False, break_on_hyphens=False)
    return [printable(line) for line in found]


def _headings(names: Sequence[str], before: Sequence[str]) -> list[Text]:
    """Names above their lines, each a step further in; those at the beginning that are as ``before`` stay said."""
    pairs = enumerate(zip(names, before, strict=False))
    same = next((depth for depth, (name, last) in pairs if name != last), min(len(names), len(before)))
    return [Text(f" {'  ' * depth}{names[depth]}", "bold") for depth in range(same, len(names))]


def _stacked(text: str) -> list[str]:
    """``0.12 [0.10, 0.14]`` as a value and its interval below it."""
    return text.replace(" [", "\n[").replace(" (", "\n(").split("\n")


def table(title: str | None = None) -> Table:
    """An empty table as the trainer draws them, for ``console.out``."""
    return Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)


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

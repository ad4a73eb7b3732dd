"""How a table is drawn on a screen of some width: from one line for each of its lines to a block for each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import Literal

from rich.cells import cell_len
from rich.text import Text

from clipeval.names import SEPARATOR
from clipeval.plain import printable

Row = tuple[str, ...]
_INDENT = 2
_PROSE = 30
"""Columns below which sentences stand under their line."""


@dataclass(frozen=True)
class Column:
    """One column of a sheet. A ``name`` says what a line is about and is shown whole at any width, a ``figure`` stands
    at the right, ``prose`` is broken between words. The higher ``leaves``, the sooner it is left out where there is no
    room; 0 is never left out. ``head`` may have several lines."""

    head: str
    kind: Literal["name", "word", "figure", "prose"] = "word"
    leaves: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "head", harmless(self.head))

    @property
    def words(self) -> str:
        """The head in one line."""
        return self.head.replace("\n", " ")


@dataclass(frozen=True)
class Form:
    """One way to draw a sheet: so many names beside the figures, and the others above their lines; heads in several
    lines; sentences below their line; without columns that leave at ``least``; intervals below their value."""

    names: int = 9
    gap: int = 3
    heads: bool = False
    below: bool = False
    least: int = 0
    stacked: bool = False


def forms(columns: Sequence[Column]) -> Iterator[Form]:
    """From the widest to the narrowest."""
    yield Form()
    yield Form(gap=2, heads=True)
    for least in (0, *sorted({column.leaves for column in columns if column.leaves}, reverse=True)):
        yield Form(1, 2, heads=True, below=True, least=least)
    yield Form(1, 2, heads=True, below=True, least=1, stacked=True)
    yield Form(0, 2, heads=True, below=True, least=1)
    yield Form(0, 2, heads=True, below=True, least=1, stacked=True)


class Drawing:
    """A sheet in one form."""

    def __init__(
        self,
        columns: Sequence[Column],
        rows: Sequence[Row],
        form: Form,
        styles: Mapping[str, str],
        measured: dict[tuple[int, bool], int],
    ) -> None:
        """``measured`` keeps how wide columns are, for the drawings of one sheet."""
        self._columns, self._rows, self._form, self._styles, self._measured = columns, rows, form, styles, measured
        stay = [place for place, column in enumerate(columns) if not 0 < form.least <= column.leaves]
        names = [place for place in stay if columns[place].kind == "name"]
        self._above = names[: max(len(names) - form.names, 0)]
        self._below = [place for place in stay if columns[place].kind == "prose"] if form.below else []
        self._beside = [place for place in stay if place not in (*self._above, *self._below)]
        self.out = [column.words for place, column in enumerate(columns) if place not in stay]
        """The heads of columns that are left out."""
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
        return max(lengths[(3 * len(lengths) - 1) // 4], cell_len(self._columns[place].words))

    def _width(self, place: int) -> int:
        column = self._columns[place]
        longest = max(map(cell_len, column.head.split(None if self._form.heads else "\n")), default=0)
        key = place, self._form.stacked
        if key not in self._measured:
            cells = (self._cell(row, place) for row in self._rows)
            self._measured[key] = max(cell_len(line) for cell in cells for line in cell)
        return max(longest, self._measured[key])

    def _cell(self, row: Row, place: int) -> list[str]:
        return _stacked(row[place]) if self._form.stacked else row[place].split("\n")

    def _drawn(self, widths: Mapping[int, int], width: int) -> list[Text]:
        lines_of = {place: self._columns[place].head.split("\n") for place in self._beside}
        heads = {
            place: [part for line in of for part in wrapped(line, widths[place])] for place, of in lines_of.items()
        }
        tallest = max(map(len, heads.values()), default=1)
        heads = {place: [*[""] * (tallest - len(head)), *head] for place, head in heads.items()}
        rule = sum(widths.values()) + self._form.gap * (len(widths) - 1) + len(self._indent) - 1
        lines = [*self._line(heads, widths, lambda _: "bold"), Text(f" {'─' * rule}")] if widths else []
        groups: dict[Row, list[Row]] = {}
        for row in self._rows:
            groups.setdefault(tuple(row[place] for place in self._above), []).append(row)
        in_one_line = all(cell_len(SEPARATOR.join(names)) < width for names in groups)
        before: Row = ()
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
                    lines += [Text(f"{indent}{line}", "dim") for line in wrapped(row[place], width - len(indent))]
        if self.out:
            lines += [Text(line, "dim") for line in wrapped(f"No room here for: {', '.join(self.out)}", width)]
        return lines

    def _fitted(self, row: Row, place: int, width: int) -> list[str]:
        if self._columns[place].kind == "prose":
            return wrapped(row[place], width)
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


def blocks(columns: Sequence[Column], rows: Sequence[Row], styles: Mapping[str, str], width: int) -> list[Text]:
    """Each line as a block: its names, then a line per value."""
    lines: list[Text] = []
    before: Row = ()
    stay = [place for place, column in enumerate(columns) if column.kind != "name" and not column.leaves]
    head = max((cell_len(columns[place].words) for place in stay), default=0)
    for row in rows:
        names = tuple(row[place] for place, column in enumerate(columns) if column.kind == "name")
        lines += _headings(names, before)
        before = names
        indent = " " * (1 + 2 * len(names))
        for place in stay:
            value = row[place].split("\n")
            if not any(value):
                continue
            title = f"{indent}{columns[place].words}"
            beside = columns[place].kind != "prose" and max(map(cell_len, value)) <= width - len(indent) - head - 2
            if beside:
                for number, text in enumerate(value):
                    label = title if number == 0 else ""
                    pad = " " * (len(indent) + head + 2 - cell_len(label))
                    lines.append(Text(f"{label}{pad}").append(text, styles.get(text)))
                continue
            room = width - len(indent) - 2
            parts = value if columns[place].kind == "figure" else [part for v in value for part in wrapped(v, room)]
            fits = max(map(cell_len, parts)) <= room
            lines += [Text(title), *(Text(f"{indent}  {v}") for v in (parts if fits else _stacked(row[place])))]
    return lines


def harmless(text: str) -> str:
    """Each line of it as ``printable`` makes it."""
    return "\n".join(map(printable, text.split("\n")))


def wrapped(text: str, width: int) -> list[str]:
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

"""Text that GitHub's Markdown shows as it is, and its tables."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

from clipeval.plain import printable

_INSIDE = (
    r"(?P<found>(?<!\w)@(?=\w)|@(?=[\w-]+\.\w)|#(?=\d)|:(?=[\w+-]+:))"  # people, mail, issues and emoji
    r"|[\\`|~$]|\*(?=\S)|(?<=\S)\*|(?<![^\W_])_|_(?![^\W_])"  # code, cells, formulas and emphasis
    r"|\](?=[(\[:])|<(?=[a-z/!?])|&(?=#?\w+;)|:(?=//|[\w.+-]+@\w)|(?<=www)\."  # links, HTML and addresses
)
_AT_START = r"^(?:[-+*](?=[\s-]|$)|[=#>\[]|\d{1,9}(?=[.)](?:\s|$)))"  # lists, headings and quotations
_IN_CELL = re.compile(_INSIDE, re.IGNORECASE)
_FIGURES = re.compile(r"[\d .,()%–]*")
_REMEMBERED = 10_000
_ANYWHERE = re.compile(f"{_INSIDE}|{_AT_START}", re.IGNORECASE)


def escaped(text: str) -> str:
    """Text that is shown as it is wherever it stands, in one line."""
    return _ANYWHERE.sub(_inert, printable(text))


def in_cell(text: str) -> str:
    """The same for a cell of a table, where nothing begins a list."""
    return text if _FIGURES.fullmatch(text) else _inert_in_cell(text)


@lru_cache(_REMEMBERED)  # tables name the same checkpoints again and again
def _inert_in_cell(text: str) -> str:
    return _IN_CELL.sub(_inert, printable(text))


def row(cells: Iterable[str]) -> str:
    """A line of a table, of cells that are Markdown."""
    return f"| {' | '.join(cells)} |"


def table(heads: Sequence[str], figures: Sequence[bool], rows: Iterable[Sequence[str]]) -> str:
    """A table of texts, which may have several lines; ``figures`` says which columns stand at the right."""
    lines = (["<br>".join(map(in_cell, text.split("\n"))) for text in line] for line in (heads, *rows))
    head, *body = map(row, lines)
    return "\n".join([head, row("--:" if figure else "---" for figure in figures), *body])


def _inert(found: re.Match[str]) -> str:
    """Names of people and the like are found in the finished page, whatever is escaped: an empty comment parts them."""
    return f"{found[0]}<!-- -->" if found["found"] else "".join(f"&#{ord(c)};" for c in found[0])

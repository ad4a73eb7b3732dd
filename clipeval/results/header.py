"""The first line of a CSV file of anybody: what its columns are called, and what a wrong one says of the file."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from clipeval.errors import few

_MOST_BYTES = 1 << 20
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "vertical bars"}


def header(data: bytes) -> list[str]:
    """The names of the columns. Raises ValueError for text that is not separated by commas, and for names that cannot
    be told apart."""
    if data.startswith(_UTF_16):
        raise ValueError("it is UTF-16 text: save it as UTF-8")
    text = io.StringIO(data[:_MOST_BYTES].decode("utf-8-sig", "replace"), newline="")
    names = next(csv.reader(text), [])
    if len(names) == 1:
        for separator, word in _SEPARATORS.items():
            if separator in names[0]:
                raise ValueError(
                    f"it has one column, '{names[0]:.60}': it is separated by {word}. Save it with commas between "
                    "cells and points in numbers"
                )
    if blank := [name for name in names if name.strip() != name and name.strip()]:
        raise ValueError(f"there are blanks around names of columns: {few(map(repr, blank))}. Write none around commas")
    if twice := next((name for name in names if name and names.count(name) > 1), None):
        raise ValueError(f"it has two columns '{twice:.60}'")
    return names


def nameless(names: Sequence[str]) -> list[int]:
    """The places of the columns without a name, from 0: the index that pandas writes, or a comma too many."""
    return [place for place, name in enumerate(names) if not name.strip()]


def left_out(places: Sequence[int]) -> str:
    """The sentence about them."""
    numbers = few(place + 1 for place in places)
    return f"without a name and left out: column {numbers}"

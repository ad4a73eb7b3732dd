"""Brace patterns of shard names, ``{000..127}`` and ``{a,b}``: counted before they are expanded."""

from __future__ import annotations

import re

MOST_NAMES = 1_000_000
"""More are taken for a pattern that means harm: names of so many would fill the memory."""
_MOST_CHARACTERS = 1 << 28
_RANGE = re.compile(r"(-?\d+)\.\.(-?\d+)(?:\.\.-?(\d+))?")
_LETTERS = re.compile(r"[A-Za-z]\.\.[A-Za-z](?:\.\.-?\d+)?")


def expand(pattern: str) -> list[str]:
    """The names that a pattern stands for, as bash and webdataset expand it.

    Raises ValueError that says what is wrong: braces without their other half, or more than ``MOST_NAMES`` names.
    """
    from braceexpand import braceexpand

    if not set(pattern) & set("{}\\"):
        return [pattern]
    try:
        names = _Count(pattern).names()
        if names > MOST_NAMES or names * len(pattern) > _MOST_CHARACTERS:
            raise ValueError(f"it stands for more than {MOST_NAMES:,} names")
        return list(braceexpand(pattern))
    except RecursionError as error:
        raise ValueError("its braces are nested too deeply") from error


class _Count:
    """One pass over a pattern that counts what it stands for."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._at = 0

    def names(self) -> int:
        """Names of the whole pattern. Raises ValueError for braces without their other half."""
        total, _ = self._alternatives()
        if self._at < len(self._pattern):
            raise ValueError(f"there is a }} without its {{ at character {self._at + 1}")
        return total

    def _alternatives(self, inside: bool = False) -> tuple[int, bool]:
        """Names up to the end of a group, a sum over commas of products; and whether there was a comma."""
        total, product, commas = 0, 1, False
        while self._at < len(self._pattern):
            character = self._pattern[self._at]
            if character == "}":
                break
            self._at += 2 if character == "\\" else 1
            if character == "{":
                product *= self._group()
            elif character == "," and inside:
                total, product, commas = total + product, 1, True
        return total + product, commas

    def _group(self) -> int:
        start = self._at
        names, commas = self._alternatives(inside=True)
        if self._at >= len(self._pattern):
            raise ValueError(f"there is a {{ without its }} at character {start}")
        expression = self._pattern[start : self._at]
        self._at += 1
        if not commas and (bounds := _RANGE.fullmatch(expression)):
            return abs(int(bounds[2]) - int(bounds[1])) // max(1, int(bounds[3] or 1)) + 1
        return 60 if not commas and _LETTERS.fullmatch(expression) else names

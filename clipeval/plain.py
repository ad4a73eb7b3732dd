"""Values as JSON knows them, and texts as a terminal, a log and a stranger may see them."""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Callable
from functools import cache
from typing import Any

_SECRETS = (
    (re.compile(r"(?<=://)[^/?#\s]*@"), "***@"),  # the user, the password, or a token in the place of one
    (re.compile(r"(?<=[a-z]:/)[^/?#\s:@]*:[^/?#\s]*@"), "***@"),  # the same where a path has swallowed a slash
    (
        re.compile(
            r"([?&;](?:[\w.%-]*(?:signature|credential|token|secret|passw(?:or)?d|api[-_]?key|access[-_]?key(?:id)?)"
            r"|sig|key|auth|policy|key-pair-id)=)[^&#\s'\"]+",
            re.IGNORECASE,
        ),
        r"\1***",
    ),
    (re.compile(r"\b(bearer|basic) +[\w.~+/=-]{8,}", re.IGNORECASE), r"\1 ***"),
    (re.compile(r"\bhf_(?=[A-Za-z_]*[A-Z0-9])(?:[a-z]+_)?[A-Za-z0-9]{10,}"), "hf_***"),
)

_INVISIBLE = frozenset(
    map(chr, (0x34F, 0x115F, 0x1160, 0x17B4, 0x17B5, *range(0x180B, 0x1810), 0x3164, *range(0xFE00, 0xFE0E), 0xFFA0))
) | frozenset(map(chr, range(0xE0100, 0xE01F0)))
"""What Unicode tells to show as nothing although it is no control character; the two that choose between a letter's
and an emoji's look (FE0E, FE0F) are left out."""
_FORMULA = re.compile(r"'*[=+\-@\t\r\n]")
_COMMAND = re.compile(r"^(\s*):(?=:)")


def plain(value: Any) -> Any:
    """``value`` for JSON: numbers of NumPy become Python's, NaN, infinities and pandas' missing value become None."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if hasattr(value, "tolist") and not isinstance(value, str):  # arrays and scalars of NumPy
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return None if type(value).__name__ == "NAType" else value


def public(text: str) -> str:
    """``text`` with ``***`` for what opens a door: users and passwords of URLs, signed query values, tokens."""
    for pattern, mask in _SECRETS:
        text = pattern.sub(mask, text)
    return text


def printable(text: object) -> str:
    """``text`` in one line that shows what it holds and does nothing: for terminals, logs and CI runners.

    Control, bidirectional and invisible characters, line breaks and lone surrogates are written as escapes, secrets
    are masked (``public``), and no workflow command of GitHub (a line that begins with ``::``, or ``##[`` anywhere)
    is left. Letters, marks, spaces, symbols and emoji of all scripts stay.
    """
    shown = public(_escaped(str(text), lambda c: c.encode("unicode_escape").decode("ascii")))
    return _COMMAND.sub(r"\1\\x3a", shown.replace("##[", r"#\x23["))


def quoted(text: Any) -> Any:
    """A text of which no spreadsheet makes a formula: an apostrophe goes before ``= + - @``, a tab or a line break."""
    return f"'{text}" if isinstance(text, str) and _FORMULA.match(text) else text


def unquoted(text: Any) -> Any:
    """The inverse of ``quoted``."""
    return text[1:] if isinstance(text, str) and text.startswith("'") and _FORMULA.match(text) else text


def masked(value: Any) -> Any:
    """``value`` as ``plain`` makes it, with ``public`` texts."""
    return _masked(plain(value), cache(public))


def _masked(value: Any, shown: Callable[[str], str]) -> Any:
    if isinstance(value, dict):
        return {_masked(key, shown): _masked(item, shown) for key, item in value.items()}
    if isinstance(value, list):
        return [_masked(item, shown) for item in value]
    return shown(value) if isinstance(value, str) else value


def json_text(value: Any, indent: int | None = 1, ascii_only: bool = False) -> str:
    """``value`` as JSON, with JSON's own escapes for what ``printable`` escapes, and all beyond ASCII if so asked."""
    document = json.dumps(plain(value), indent=indent, ensure_ascii=False)
    lines = document.split("\n")  # line breaks of the layout: those of strings are escapes by now
    return "\n".join(_escaped(line, _json_escape, ascii_only) for line in lines).replace("##[", r"#\u0023[")


def _escaped(text: str, escape: Callable[[str], str], ascii_only: bool = False) -> str:
    if text.isprintable() and (text.isascii() or (not ascii_only and _INVISIBLE.isdisjoint(text))):
        return text
    return "".join(c if _is_visible(c) and (c.isascii() or not ascii_only) else escape(c) for c in text)


def _is_visible(c: str) -> bool:
    return (c.isprintable() and c not in _INVISIBLE) or unicodedata.category(c) == "Zs"


def _json_escape(c: str) -> str:
    units = c.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))

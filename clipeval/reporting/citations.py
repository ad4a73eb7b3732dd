"""Whom to cite for numbers of a page, in BibTeX."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from clipeval.version import __version__

ALWAYS = ("clipeval", "cherti2023")
"""What CITATION.cff asks for: clipeval, and the paper whose study it continues."""
_ENTRIES = Path(__file__).with_name("citations.bib")


def citations(studies: Iterable[str]) -> dict[str, str]:
    """The entries of what is always cited, then of ``studies`` by name; one that came from elsewhere has a comment."""
    entries = _ENTRIES.read_text("utf-8").replace("VERSION", __version__).strip().split("\n\n")
    known = {re.sub(r"@\w+\{(\w+),.*", r"\1", entry, flags=re.DOTALL): entry for entry in entries}
    return {name: known.get(name, _unknown(name)) for name in (*ALWAYS, *studies)}


def _unknown(name: str) -> str:
    return f"% {' '.join(name.split())}: see the column reference of its rows"

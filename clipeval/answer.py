"""What a command answers on stdout, where ``--format`` asks for another form than that of a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import Any

from clipeval.choices import TableFormat
from clipeval.console import PIPE_WIDTH, recorded, say
from clipeval.markdown import escaped


@contextmanager
def answered_as(form: TableFormat) -> Iterator[None]:
    """Inside, sheets and lines that are shown are kept, and at its end, however that comes, printed as ``form``. Of TSV
    nothing but tables goes to stdout: titles, legends and lines go to stderr."""
    if form == "text":
        yield
        return
    with recorded(PIPE_WIDTH) as items:
        try:
            yield
        finally:
            if answer := (_markdown if form == "md" else _tsv)(items):
                print(answer, flush=True)  # noqa: T201 all of it is printable


def _markdown(items: Sequence[Any]) -> str:
    """Lines that follow each other are a list."""
    parts = []
    for are_lines, group in groupby(filter(None, items), lambda item: isinstance(item, str)):
        found = [f"- {escaped(item.removeprefix('· '))}" if are_lines else item.markdown() for item in group]
        parts.append(("\n" if are_lines else "\n\n").join(found))
    return "\n\n".join(parts)


def _tsv(items: Sequence[Any]) -> str:
    """A blank line stands between tables."""
    sheets = [item for item in items if not isinstance(item, str)]
    for item in items:
        for line in [item] if isinstance(item, str) else [item.title, *item.legend]:
            if line:
                say(line)
    return "\n\n".join(sheet.tsv() for sheet in sheets)

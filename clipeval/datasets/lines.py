"""The small text files beside the data: class names, templates, counts, lists of shards."""

from __future__ import annotations

from pathlib import Path

from clipeval.errors import DataError
from clipeval.regular import read_regular

BYTE_LIMIT = 64 << 20
_LINE_LIMIT = 10_000
"""Characters of a line."""


def read_lines(path: Path, name: str = "") -> list[str] | None:
    """The lines of a UTF-8 file, without a byte order mark, the blanks around each, and blank lines at the end; None
    where there is no file.

    ``name`` is what messages call the file. Raises DataError for a file that cannot be read or is too large.
    """
    name = name or str(path)
    try:
        lines = read_regular(path, BYTE_LIMIT).decode("utf-8-sig").splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise DataError(f"{name}: cannot read it: {reason}.") from error
    for number, line in enumerate(lines, 1):
        if len(line) > _LINE_LIMIT:
            raise DataError(f"{name}:{number}: {len(line):,} characters are more than the limit of {_LINE_LIMIT:,}.")
    lines = [line.strip() for line in lines]
    while lines and not lines[-1]:
        lines.pop()
    return lines

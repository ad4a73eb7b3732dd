"""stdout and stderr while a command runs: what happens to them does not change what the command finds."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import sys
from collections.abc import Iterator
from typing import Any, TextIO

from clipeval.errors import StoreError

_COMMAND = re.compile(r"(^|[\r\n])(\s*):(?=:)")
_CONTROL = re.compile(
    r"\x1b(?!\[[0-9;?]*[A-Za-z])|[\x00-\x08\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]"
)
_MOVES = re.compile(r"\x1b(?!\[[0-9;]*m)")


class Stream:
    """A standard stream. When its reader has gone (``| head``) nothing is written any more and the command goes on.

    Whoever writes, another library's warning too: no line is a workflow command of GitHub, and there are no control
    characters but line breaks, tabs, colours and, on a terminal, the moves of a progress bar. What else must not be
    shown of a name is the business of ``plain.printable``. Writing raises StoreError when ``needed`` and impossible.
    """

    def __init__(self, stream: TextIO | None, name: str, needed: bool) -> None:
        self._stream, self._name, self._needed = stream, name, needed
        self._starts, self._gone = True, False
        with contextlib.suppress(AttributeError, ValueError):
            self._stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    @property
    def encoding(self) -> str:
        """The stream's own, for those who ask before they write."""
        return getattr(self._stream, "encoding", None) or "utf-8"

    def isatty(self) -> bool:
        """Whether a person looks at it."""
        return self._stream is not None and not self._stream.closed and self._stream.isatty()

    def write(self, text: str) -> int:
        """Write text made harmless."""
        safe = text.replace("##[", r"#\x23[") if "##[" in text else text
        safe = _COMMAND.sub(lambda found: found[0] if self._continues(found) else rf"{found[1]}{found[2]}\x3a", safe)
        safe = _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), safe)
        self.write_command(safe if self.isatty() else _MOVES.sub(r"\\x1b", safe))
        return len(text)

    def write_command(self, text: str) -> None:
        """Write text as it is: a workflow command, or what has been made harmless."""
        if text:
            self._starts = text[-1] in "\r\n"
            self._do("write", text)

    def writelines(self, lines: Any) -> None:
        """Write one after the other."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Hand on what was written. Nothing is lost of a closed stream that nothing was written to."""
        if self._stream is not None:
            self._do("flush")

    def _continues(self, found: re.Match[str]) -> bool:
        return found.start() == 0 and not found[1] and not self._starts

    def _do(self, action: str, *arguments: str) -> None:
        if self._gone:
            return
        try:
            if self._stream is None or self._stream.closed:
                raise OSError(errno.EBADF, "it is closed")
            getattr(self._stream, action)(*arguments)
        except OSError as error:
            self._leave()
            if self._needed and error.errno != errno.EPIPE:
                raise StoreError(f"{self._name}: cannot write: {error.strerror or error}.") from error

    def _leave(self) -> None:
        """What still waits in a buffer goes nowhere, so that the interpreter does not fail over it at its end."""
        self._gone = True
        with contextlib.suppress(OSError, ValueError, AttributeError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())  # type: ignore[union-attr]
            os.close(nowhere)


@contextlib.contextmanager
def guarded_streams() -> Iterator[None]:
    """Put a ``Stream`` in the place of stdout and stderr; the data on stdout are what a command is asked for."""
    before = sys.stdout, sys.stderr
    _reserve_numbers()
    sys.stdout = Stream(sys.stdout, "standard output", needed=True)  # type: ignore[assignment]
    sys.stderr = Stream(sys.stderr, "standard error", needed=False)  # type: ignore[assignment]
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def _reserve_numbers() -> None:
    """A closed standard stream leaves its number to the next file that is opened: give it to none."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(number)

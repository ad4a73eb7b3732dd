"""Every error a user can meet, and the exit code it ends in.

    ClipevalError
    ├── UsageError            2   a wrong command line or configuration: nothing was started
    └── MeasureError          3   something could not be measured; the other cells go on
        ├── DataError             a data set is missing, broken or inconsistent
        ├── ModelError            a checkpoint is missing, unsafe, broken or of another shape
        ├── MetricError           a metric is not defined on this input
        ├── RemoteError           a file of the hub cannot be had
        │   ├── AbsentError       there is no such file, branch, tag or commit
        │   └── NotHereError      it is not on this machine, and nothing is downloaded now
        └── StoreError            a cache or result file cannot be read or written

A message says what, where, why and what to do. An exception outside this tree is a bug in clipeval (exit 70).
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice

EXIT_OK, EXIT_CHECK_FAILED, EXIT_USAGE, EXIT_NOT_MEASURED, EXIT_BUG, EXIT_INTERRUPTED = 0, 1, 2, 3, 70, 130


class ClipevalError(Exception):
    """Base of all errors whose message is meant for the user; shown without a traceback."""

    exit_code = EXIT_BUG


class UsageError(ClipevalError):
    """The command line or a configuration file is wrong."""

    exit_code = EXIT_USAGE


class MeasureError(ClipevalError):
    """A value could not be measured. Inside a run it becomes a row with status ``failed``."""

    exit_code = EXIT_NOT_MEASURED


class DataError(MeasureError):
    """A data set is missing, broken or inconsistent with what it says of itself."""


class ModelError(MeasureError):
    """A checkpoint is missing, unsafe to load, broken or of another shape than its architecture."""


class MetricError(MeasureError):
    """A metric is not defined on this input, for example recall@10 among 4 candidates."""


class RemoteError(MeasureError):
    """A file of the hub cannot be had."""


class AbsentError(RemoteError):
    """A repository of the hub has no such file, branch, tag or commit."""


class NotHereError(RemoteError, DataError):
    """A file is not on this machine, and nothing is downloaded now. That says nothing against it."""


def is_not_here(error: BaseException | None) -> bool:
    """Whether all there is against something is that it is not on this machine."""
    return error is not None and (isinstance(error, NotHereError) or is_not_here(error.__cause__))


class StoreError(MeasureError):
    """A cache entry or a result file cannot be read or written."""


_NO_MEMORY = ("can't allocate memory", "out of memory", "alloc_failed")
"""What torch and NVIDIA's libraries say in a RuntimeError."""


def is_no_memory(error: BaseException) -> bool:
    """Whether an exception says that the machine or the device has no memory left."""
    if isinstance(error, MemoryError) or isinstance(error.__cause__, MemoryError):
        return True
    return not isinstance(error, ClipevalError) and any(words in str(error).lower() for words in _NO_MEMORY)


@contextmanager
def foreign(told: Callable[[Exception], ClipevalError]) -> Iterator[None]:
    """Whatever a library raises about somebody's file or model becomes the error that ``told`` makes of it; our own
    errors stay, and no memory is no fault of the file: MemoryError."""
    try:
        yield
    except (ClipevalError, MemoryError):
        raise
    except Exception as error:
        if is_no_memory(error):
            raise MemoryError(first_line(error)) from error
        raise told(error) from error


def first_line(error: BaseException) -> str:
    """What an exception of another library says, without its advice."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


_LONGEST_NAME, _MOST_NAMES = 200, 5000
"""Comparing takes the product of the lengths: beyond these nobody has mistyped a name."""


def suggest(word: str, choices: Iterable[str]) -> str:
    """`` Did you mean 'x'?`` for the closest of ``choices``, or an empty string when none is close."""
    if len(word) > _LONGEST_NAME:
        return ""
    names = (choice for choice in choices if len(choice) <= _LONGEST_NAME)
    lowered = {choice.lower(): choice for choice in islice(names, _MOST_NAMES)}
    close = difflib.get_close_matches(word.lower(), lowered, n=1, cutoff=0.6)
    return f" Did you mean '{lowered[close[0]]}'?" if close else ""


def counted(number: int, word: str) -> str:
    """``1 node``, ``2 nodes``."""
    return f"{number:,} {word}" + ("" if number == 1 else "s")


def few(words: Iterable[object], most: int = 10) -> str:
    """``a, b, c``, and of more than ``most`` how many there are: a message is to be read."""
    listed = [str(word) for word in words]
    return ", ".join(listed[:most]) + (f" and {len(listed) - most:,} more" if len(listed) > most else "")

"""Whatever a checkpoint or a data set raises becomes an error that ends its own cells and nothing else."""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import ParamSpec, TypeVar

from clipeval.console import say
from clipeval.errors import (
    ClipevalError,
    MeasureError,
    ModelError,
    StoreError,
    UsageError,
    counted,
    first_line,
    is_no_memory,
)

P = ParamSpec("P")
T = TypeVar("T")

_LOADER_CRASHED = "DataLoader worker"
_LONGEST_REASON = 500
_LOG = "errors.log"


class InternalError(ClipevalError):
    """A bug, or input that nobody thought of: its cells become failed rows, the run goes on and ends in exit 70."""

    trace = ""
    """The traceback, for ``log``."""


class OutOfMemory(ModelError):
    """The device or the machine has no memory left: elsewhere, or later, the same work may succeed."""


class Elsewhere(MeasureError):
    """This machine lacks, or has otherwise, what the machine that planned the run could open: that one, or a third, may
    succeed."""

    what: tuple[str, str] = ("", "")
    """``checkpoint`` or ``data set``, and its name."""


@contextmanager
def as_clipeval_errors() -> Iterator[None]:
    """Turn what libraries raise for a full device or a lost decoder into errors for people, and the rest into
    InternalError."""
    try:
        yield
    except (ClipevalError, KeyboardInterrupt):
        raise
    except Exception as error:
        text = str(error)
        if is_no_memory(error):
            first = (text or "MemoryError").splitlines()[0]
            raise OutOfMemory(f"the device ran out of memory: {first} Use a smaller --batch-size.") from error
        if text.startswith(_LOADER_CRASHED):
            raise StoreError(f"an image decoding process died: {text.splitlines()[0]} Use fewer --workers.") from error
        reason = f"{type(error).__name__}: {first_line(error)}"[:_LONGEST_REASON]
        bug = InternalError(f"{reason} (a bug of clipeval; {_LOG} in the results folder has the traceback)")
        bug.trace = "".join(traceback.format_exception(error))
        raise bug from error


def attempt(function: Callable[P, T], *arguments: P.args, **keywords: P.kwargs) -> T | ClipevalError:
    """What the function returns, or the error that it ends in. Raises UsageError, which is about the whole run."""
    try:
        with as_clipeval_errors():
            return function(*arguments, **keywords)
    except UsageError:
        raise
    except ClipevalError as error:
        return error


def log(out: Path, errors: Iterable[ClipevalError]) -> None:
    """Append the traceback of every bug among ``errors`` to ``OUT/errors.log``, each once with the number of cells that
    met it, and say so."""
    traces = Counter(error.trace for error in errors if isinstance(error, InternalError))
    if not traces:
        return
    met = [f"{trace}({counted(count, 'cell')})\n" for trace, count in traces.items()]
    text = f"== {datetime.now(UTC).isoformat(timespec='seconds')}\n" + "\n".join(met)
    try:
        with (out / _LOG).open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
    except OSError as error:
        say(f"{out / _LOG}: cannot write: {error.strerror}. It would hold:\n{text}")
        return
    say(f"This is a bug in clipeval. Please report it with the traceback in {out / _LOG}.")

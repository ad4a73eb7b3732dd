"""Large files of other machines that are fetched later, while something else is done: a look notes them instead."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from dataclasses import dataclass
from typing import TypeVar, cast

from clipeval.errors import ClipevalError, NotHereError, is_not_here

T = TypeVar("T")

SMALL_BYTES = 1_000_000
"""Smaller files say what there is to fetch: they are fetched at once."""


@dataclass(frozen=True)
class Later:
    """A file to be fetched: what it is, its size in bytes (None: not known), and how."""

    what: str
    size: int | None
    fetch: Callable[[], object]


_noted: ContextVar[list[Later] | None] = ContextVar("noted", default=None)


@contextmanager
def noting(wanted: bool = True) -> Iterator[list[Later]]:
    """Inside, in this thread, a large file that is not here is not fetched: it is NotHereError, and in the list. Unless
    that is ``wanted``, nothing is different."""
    found: list[Later] = []
    before = _noted.set(found if wanted else None)
    try:
        yield found
    finally:
        _noted.reset(before)


def require_now(what: str, size: int | None, fetch: Callable[[], object]) -> None:
    """To be called before a file is fetched. Raises NotHereError inside ``noting``, unless it is small."""
    found = _noted.get()
    if found is not None and (size is None or size >= SMALL_BYTES):
        found.append(Later(what, size, fetch))
        raise NotHereError(f"{what} is not on this machine yet.")


def is_noting() -> bool:
    """Whether large files are noted instead of fetched."""
    return _noted.get() is not None


def each(calls: Iterable[Callable[[], T]], at_once: int = 1) -> list[T]:
    """What each call gives, ``at_once`` of them at a time. Files that are noted do not keep the others from it: the
    first error of that kind is raised after all calls."""
    missing: list[ClipevalError] = []

    def one(call: Callable[[], T]) -> T | None:
        try:
            return call()
        except ClipevalError as error:
            if not (is_noting() and is_not_here(error)):
                raise
            missing.append(error)
            return None

    if at_once > 1:
        with ThreadPoolExecutor(at_once) as pool:
            futures = [pool.submit(copy_context().run, one, call) for call in calls]
            found = [future.result() for future in futures]
    else:
        found = [one(call) for call in calls]
    if missing:
        raise missing[0]
    return cast("list[T]", found)

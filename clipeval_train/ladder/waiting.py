"""In which order what is to be done begins, when some of it waits for other parts and some takes several places."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Generic, Protocol, TypeVar

from clipeval_train.ladder.runs import FINISHED, NEW, Run


class Item(Protocol):
    """What can wait: a run, or the cost of one."""

    @property
    def name(self) -> str:
        """What others call it."""

    @property
    def after(self) -> str:
        """The name of what it waits for, or nothing."""

    @property
    def processes(self) -> int:
        """How many places it takes."""

    @property
    def expense(self) -> float:
        """How much work it is."""


T = TypeVar("T", bound=Item)


class Waiting(Generic[T]):
    """Items, first those behind which the most work comes: their own and that of what waits for them."""

    def __init__(self, items: Iterable[T]) -> None:
        items = list(items)
        self._left = sorted(items, key=lambda item: -_work_until_the_end(item, items))
        self._pending = {item.name for item in items}

    def __bool__(self) -> bool:
        return bool(self._left)

    def take(self, free: int) -> T | None:
        """The next one whose turn it is, None where it does not fit or all wait for something that is under way.

        One that needs many places is not overtaken by small ones: it would wait for ever.
        """
        ready = next((item for item in self._left if item.after not in self._pending), None)
        if ready is None or ready.processes > free:
            return None
        self._left.remove(ready)
        return ready

    def done(self, item: T) -> None:
        """What waits for ``item`` may begin."""
        self._pending.discard(item.name)

    def lost(self, item: T) -> list[T]:
        """``item`` is not to be had: take out and return all that wait for it."""
        found = [other for other in self._left if other.after == item.name]
        self._left = [other for other in self._left if other.after != item.name]
        return [one for other in found for one in (other, *self.lost(other))]


def _work_until_the_end(item: T, items: Sequence[T]) -> float:
    behind = (_work_until_the_end(other, items) for other in items if other.after == item.name)
    return item.expense + max(behind, default=0.0)


def left_to_do(runs: Sequence[Run], states: dict[str, str]) -> list[Run]:
    """The runs that are not finished. A trunk is needed only by what has not begun: the others have all they need."""
    kept: list[Run] = []
    for run in reversed(runs):
        wanted = not run.is_trunk or any(other.after == run.name and states[other.name] == NEW for other in kept)
        if states[run.name] != FINISHED and wanted:
            kept.append(run)
    return kept[::-1]

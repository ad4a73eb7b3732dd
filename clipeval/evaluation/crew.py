"""Workers as the one sees them who hands out the work: how they are had, what they answer, how they are lost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol

from clipeval.errors import ClipevalError
from clipeval.evaluation.schedule import Unit
from clipeval.evaluation.workbench import Measured

Answer = Measured | ClipevalError | None
"""Of a worker to a unit: None where there is nothing to hand back."""


@dataclass(frozen=True)
class Machine:
    """What a worker says of where it runs: all that decides values there."""

    host: str
    sources: dict[str, str]
    """Digests of clipeval's own files."""
    packages: str
    cache: str = ""
    """The same for machines that share a cache (``embeddings/sharing.py``)."""


@dataclass(frozen=True)
class Started:
    """A worker is ready, on a node that has an id and a name for people."""

    seat: int
    node: str
    where: str
    machine: Machine


@dataclass(frozen=True)
class Answered:
    """A worker has done its unit, well or not."""

    seat: int
    answer: Answer


@dataclass(frozen=True)
class Lost:
    """A worker has ended, or could not start (then its seat was never ready). ``final``: the next one there could not
    either. ``with_node``: its node has gone, so its work is not to blame."""

    seat: int
    node: str
    where: str
    reason: str
    final: bool = False
    with_node: bool = False


@dataclass(frozen=True)
class Told:
    """A line for the person."""

    line: str


Event = Started | Answered | Lost | Told


class Crew(Protocol):
    """The workers of one run, each at a seat of its own. Leaving the context ends all of them."""

    @property
    def asked(self) -> int | None:
        """How many there are or are asked for; None as long as that is not known."""

    def staff(self, most: int) -> None:
        """Let there be as many workers as the machines take, ``most`` of them; lost ones are replaced."""

    def hand(self, seat: int, unit: Unit) -> None:
        """Give a worker that waits something to do."""

    def wait(self, seconds: float) -> Sequence[Event]:
        """What has happened; after some seconds nothing. Raises MeasureError where nothing ever will."""

    def dismiss(self, seat: int) -> None:
        """End a worker."""

    def close(self, node: str) -> None:
        """End the workers of a node and have none there any more."""

    def summary(self, nodes: Sequence[str]) -> str:
        """How many are ready, for people: ``nodes`` has the node of each. Empty where that is about to change."""

    def __enter__(self) -> Crew: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

"""Samples that cannot be used: why, how many, and how many are too many."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from clipeval.errors import DataError

_FEWEST = 100
"""So many bad samples are let pass before their share is looked at."""


class BadSample(Exception):
    """One sample cannot be used; the message is the reason it is counted under."""


@dataclass
class Tally:
    """How many samples were read, how many of them were bad by reason, and the first bad one."""

    read: int = 0
    bad: Counter[str] = field(default_factory=Counter)
    example: str = ""

    @classmethod
    def of(cls, facts: dict[str, Any]) -> Tally:
        """The tally that ``facts`` describes."""
        return cls(facts["read"], Counter(facts["bad"]), facts["example"])

    def facts(self) -> dict[str, Any]:
        """All of it as JSON values."""
        return {"read": self.read, "bad": dict(self.bad), "example": self.example}

    def add(self, other: Tally) -> None:
        """Count what another one has counted."""
        self.read += other.read
        self.bad.update(other.bad)
        self.example = self.example or other.example

    def reject(self, reason: str, sample: str) -> None:
        """Count a bad sample."""
        self.bad[reason] += 1
        self.example = self.example or f"{sample}: {reason}"

    def check(self, budget: float) -> None:
        """Raise DataError when more than the share ``budget`` of what was read is bad."""
        if (total := self.bad.total()) >= _FEWEST and total > budget * self.read:
            raise DataError(
                f"{total:,} of {self.read:,} samples read cannot be used ({self}), more than a share of {budget:g}. "
                f"For example {self.example}. Repair or remove the bad ones, or raise `bad_samples`."
            )

    def __str__(self) -> str:
        return ", ".join(f"{reason}: {count:,}" for reason, count in self.bad.most_common()) or "nothing bad found"

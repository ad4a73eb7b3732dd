"""The four verdicts, and what one rule says of a cell."""

from __future__ import annotations

from dataclasses import dataclass

PASS, CANNOT_TELL, NOT_COMPARABLE, FAIL = "pass", "cannot-tell", "not-comparable", "fail"
VERDICTS = (FAIL, NOT_COMPARABLE, CANNOT_TELL, PASS)
"""The gravest first."""
_OF_WHAT_IS_THERE = ("min", "max_drop", "tolerance", "on_trend")


@dataclass(frozen=True)
class Finding:
    """What one rule says of a cell, and why. ``rule`` is its key, ``same_samples`` for what makes values comparable."""

    rule: str
    verdict: str
    reason: str

    @property
    def is_undecided(self) -> bool:
        """Whether both values are there, and more samples or checkpoints would settle it."""
        return self.verdict == CANNOT_TELL and self.rule in _OF_WHAT_IS_THERE

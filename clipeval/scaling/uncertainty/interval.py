"""A confidence interval of a law's parameter."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Interval:
    """A 95 % interval and the method behind it; NaN bounds and a ``reason`` where no honest one can be given."""

    low: float
    high: float
    method: str
    reason: str = ""

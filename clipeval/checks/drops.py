"""What a paired difference says of a drop that is allowed: no more than that, more, or neither yet."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from clipeval.checks.verdicts import CANNOT_TELL, FAIL, PASS
from clipeval.errors import few
from clipeval.stats import noninferiority
from clipeval.stats.paired import Paired

ROUNDING = 1e-9
FACTS = (
    *("allowed", "drop_low", "drop_high", "p_beyond", "p_beyond_holm"),
    *("outcomes", "outcomes_needed", "pass_chance"),
)
"""Keys of ``Drop.to_dict``."""
_MOST_NAMED = 5


@dataclass(frozen=True, eq=False)
class Drop:
    """A difference in points (positive: the checkpoint is worse) against ``allowed`` of them.

    ``p_holm`` is of "there is no drop", ``p_beyond`` of "it is at most what is allowed" and ``p_beyond_holm`` the same
    corrected. Of the mean of several data sets ``failing`` and ``suspects`` name those that settle it.
    """

    test: Paired
    allowed: float
    alpha: float
    p_holm: float = math.nan
    p_beyond_holm: float = math.nan
    failing: tuple[str, ...] = ()
    suspects: tuple[str, ...] = ()

    @property
    def points(self) -> float:
        """The estimate."""
        return 100 * self.test.difference

    @cached_property
    def limits(self) -> tuple[float, float]:
        """The smallest and the largest drop in points that a one-sided test of level 1 - alpha does not exclude."""
        low, high = self.test.limits(1 - self.alpha)
        return 100 * low, 100 * high

    @cached_property
    def p_beyond(self) -> float:
        """The chance of such a drop if it was what is allowed in truth."""
        return self.test.p_beyond(self.allowed / 100)

    @property
    def is_suspect(self) -> bool:
        """Whether there is a drop, it seems larger than allowed, and that may be chance."""
        return self.verdict == CANNOT_TELL and self.points > self.allowed + ROUNDING and self.p_holm <= self.alpha

    @property
    def settles(self) -> bool:
        """Whether it counts even where it is part of a mean: it fails, or is suspect."""
        return self.verdict == FAIL or self.is_suspect

    @cached_property
    def verdict(self) -> str:
        """``fail`` where more than allowed is shown to be lost, ``pass`` where that is excluded."""
        if self.failing or self.p_beyond_holm <= self.alpha:
            return FAIL
        return CANNOT_TELL if self.is_too_wide or self.suspects else PASS

    @property
    def is_too_wide(self) -> bool:
        """Whether more than is allowed is not excluded."""
        return not self.limits[1] < self.allowed

    @property
    def reason(self) -> str:
        """The verdict in words."""
        low, high = self.limits
        drop, allowed = f"drop {self.points:.2f} points" if self.points > 0 else "no drop", f"{self.allowed:g} allowed"
        if self.p_beyond_holm <= self.alpha:
            return f"{drop}, at least {low:.2f}, {allowed}, p {self.p_beyond_holm:.2g}"
        if self.failing:
            return f"lost more than is allowed: {few(self.failing, _MOST_NAMED)}"
        if self.is_suspect:
            return f"suspect: {drop} (p {self.p_holm:.2g}), {low:.2f} to {high:.2f}, {allowed}"
        shown = "no loss shown" if self.p_holm > self.alpha else drop
        if self.is_too_wide:
            said = f"{shown}; could be up to {high:.2f} points, {allowed}"
        else:
            said = f"{drop}, at most {high:.2f}, {allowed}" if high > 0 else f"better by at least {-high:.2f} points"
        return f"{said}; suspect: {few(self.suspects, _MOST_NAMED)}" if self.suspects else said

    @property
    def outcomes_needed(self) -> int | None:
        """How many outcomes would make two equally good checkpoints pass in 90 %, if as large a share of them differs;
        None where no drop is allowed, which no number of them excludes."""
        if not self.allowed:
            return None
        variance = self.test.variance_if_equal
        return math.ceil(self.test.n * noninferiority.times_as_many(variance, self.allowed / 100, 1 - self.alpha))

    @property
    def pass_chance(self) -> float:
        """How often two equally good checkpoints pass with these, suspects apart."""
        return float(noninferiority.pass_chance(self.test.variance_if_equal, self.allowed / 100, 1 - self.alpha))

    @property
    def what_decides(self) -> str:
        """How many outcomes it has and needs, in words."""
        if self.outcomes_needed is None:
            return "no number of outcomes decides where no drop is allowed: only a gain that is shown passes"
        differ, of = (
            100 * (self.test.lost + self.test.won) / self.test.n,
            "suite" if len(self.test.parts) > 1 else "data set",
        )
        return (
            f"to decide at M = {self.allowed:g} with {differ:.2g} % disagreement this {of} needs "
            f"{self.outcomes_needed:,} outcomes; it has {self.test.n:,} "
            f"(pass in {100 * self.pass_chance:.0f} % at equal quality)"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, drops in points."""
        low, high = self.limits
        values = (self.allowed, low, high, self.p_beyond, self.p_beyond_holm)
        return dict(zip(FACTS, (*values, self.test.n, self.outcomes_needed, self.pass_chance), strict=True))

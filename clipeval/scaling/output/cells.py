"""Cells of a fit's tables: what a line is about, and figures with the digits that their intervals support."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from clipeval import vocabulary
from clipeval.drawing import Column
from clipeval.tables import NONE, estimate, number, significant

if TYPE_CHECKING:
    import pandas as pd

Row = Mapping[str, Any]


def names(*heads: str) -> tuple[Column, ...]:
    """The columns that say what a line is about."""
    return tuple(Column(head, "name") for head in heads)


def rows_of(table: pd.DataFrame) -> list[dict[str, Any]]:
    """One dictionary per row, unknown numbers as NaN: they go through arithmetic."""
    rows: list[Any] = table.to_dict("records")
    return rows


def cell(row: Row) -> tuple[str, str]:
    """Data set and metric."""
    shots = row["shots"]
    dataset = vocabulary.dataset(row["dataset"], int(shots) if shots == shots and shots else None)
    return dataset, vocabulary.metric(row["metric"]).title


def pair(row: Row) -> str:
    """The two sources of a comparison."""
    return f"{row['source_a']} vs {row['source_b']}"


def beyond(row: Row, guard: float) -> str:
    """How far outside the fitted points something lies, marked beyond ``guard`` decades."""
    decades = row["decades_beyond"]
    return f"{decades:.2f} decades{' !' if decades > guard else ''}" if decades > 0 else "within"


@dataclass(frozen=True)
class Digits:
    """How many are shown: those that an interval supports, or in ``full`` those that printed ones are compared by."""

    full: bool

    def interval(
        self,
        row: Row,
        name: str,
        bounds: str = "",
        *,
        ratio: bool = False,
        figures: int = 6,
        bound_figures: int | None = None,
    ) -> str:
        """A value with its interval; ``figures`` are significant ones, in full."""
        value, low, high = row[name], row[f"{bounds or name}_low"], row[f"{bounds or name}_high"]
        if math.isnan(value) or not self.full:
            return estimate(value, low, high, ratio=ratio)
        shown = significant(value, figures)
        if math.isnan(low) or math.isnan(high):
            return shown
        ends = (significant(end, bound_figures or figures) for end in (low, high))
        return f"{shown} [{', '.join(ends)}]"

    def predicted(self, value: float, low: float, high: float, decimals: int, bound_decimals: int) -> str:
        """The same with decimals in place of significant figures."""
        if math.isnan(value) or not self.full:
            return estimate(value, low, high)
        ends = "" if math.isnan(low) else f" [{low:.{bound_decimals}f}, {high:.{bound_decimals}f}]"
        return f"{value:.{decimals}f}{ends}"

    def number(self, value: float, decimals: int, fewer: int) -> str:
        """A number that has no interval, with ``fewer`` decimals where not in full."""
        known = math.isfinite(value)
        return number(float(value), decimals if self.full else fewer) if known else NONE

    def p(self, value: float) -> str:
        """A p value: four decimals, or two significant figures above 0.0001."""
        if self.full or math.isnan(value):
            return number(value, 4)
        return "<0.0001" if value < 1e-4 else f"{value:#.2g}" if value < 0.1 else f"{value:.2f}"

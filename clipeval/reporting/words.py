"""How values are written on the page."""

from __future__ import annotations

import math
from collections.abc import Sequence

from clipeval.tables import human


def percent(value: float, digits: int = 1) -> str:
    """0.735 as ``73.5``"""
    return f"{100 * value:.{digits}f}" if math.isfinite(value) else "–"


def shown(value: float, in_percent: bool) -> str:
    """``73.5``; what is not shown in percent, such as a loss, with four figures: ``2.310``."""
    return percent(value) if in_percent else f"{value:#.4g}" if math.isfinite(value) else "–"


def points(value: float) -> str:
    """A difference of proportions in percentage points, with its sign."""
    return f"{100 * value:+.1f}".replace("-", "−") if math.isfinite(value) else "–"


def size(value: float) -> str:
    """A large number with a metric suffix: 12.8B; a dash when unknown or not finite."""
    return human(value if math.isfinite(value) else None)


def probability(p: float) -> str:
    """A p value: ``0.012``, ``0.0003``, ``3e-07``, ``< 1e-12``"""
    if not math.isfinite(p):
        return "–"
    if p < 1e-12:
        return "< 1e-12"
    return f"{p:.3f}" if p >= 0.001 else f"{p:.4f}" if p >= 0.0001 else f"{p:.0e}"


def count(n: int, noun: str) -> str:
    """``1 checkpoint``, ``12,345 checkpoints``"""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def listed(names: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``"""
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last

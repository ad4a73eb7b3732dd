"""Time until ``clipeval --help`` and ``clipeval list models`` answer (median of 5, seconds)."""

from __future__ import annotations

import statistics
import sys
from pathlib import Path

from bench.measure import machine, timed

LIMITS = {"--help": 0.5, "list models": 1.5}


def main() -> None:
    """Print the medians beside their limits."""
    print(machine())
    script = Path(sys.executable).with_name("clipeval")
    for words, limit in LIMITS.items():
        seconds = statistics.median(timed([str(script), *words.split()]).seconds for _ in range(5))
        print(f"clipeval {words:12} {seconds:.2f} s (limit {limit} s)")

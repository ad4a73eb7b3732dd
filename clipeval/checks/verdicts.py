"""What is said of a cell, and of all of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from clipeval.errors import EXIT_CHECK_FAILED, EXIT_NOT_MEASURED, EXIT_OK

PASS, CANNOT_TELL, NOT_COMPARABLE, FAIL = "pass", "cannot-tell", "not-comparable", "fail"
VERDICTS = (FAIL, NOT_COMPARABLE, CANNOT_TELL, PASS)
"""The gravest first."""


@dataclass(frozen=True)
class Finding:
    """What one rule says of a cell, and why. ``rule`` is its key, ``same_samples`` for what makes values comparable."""

    rule: str
    verdict: str
    reason: str


@dataclass(frozen=True)
class CheckedCell:
    """One value against its baseline. Values are in the metric's own unit; NaN is a value that is not there.

    ``p`` is the one-sided p value of a loss, ``p_holm`` the same corrected over the cells that were tested.
    """

    model: str
    baseline_model: str
    dataset: str
    task: str
    metric: str
    shots: int | None
    seed: int | None
    baseline: float
    current: float
    findings: tuple[Finding, ...]
    p: float = float("nan")
    p_holm: float = float("nan")
    test: str = ""

    @cached_property
    def verdict(self) -> str:
        """The gravest of the findings."""
        found = {finding.verdict for finding in self.findings}
        return next(verdict for verdict in VERDICTS if verdict in found)

    @property
    def reason(self) -> str:
        """Why the verdict is what it is."""
        return "; ".join(finding.reason for finding in self.findings if finding.verdict == self.verdict)

    @property
    def where(self) -> str:
        """Data set, task and metric, for people."""
        shots = f" · {self.shots} shots" if self.shots is not None else ""
        seed = f" · seed {self.seed}" if self.shots is not None and self.seed is not None else ""
        return f"{self.dataset} · {self.task}{shots}{seed} · {self.metric}"

    @property
    def who(self) -> str:
        """The checkpoint, and the baseline's where that has another name."""
        return self.model if self.model == self.baseline_model else f"{self.model} (baseline: {self.baseline_model})"

    def to_dict(self) -> dict[str, Any]:
        """Plain values: the fields, ``verdict``, ``change`` in points (positive: the value grew) and ``reason``."""
        names = ("model", "baseline_model", "dataset", "task", "metric", "shots", "seed")
        return {name: getattr(self, name) for name in names} | {
            "verdict": self.verdict,
            "baseline": self.baseline,
            "current": self.current,
            "change": 100 * (self.current - self.baseline),
            "p": self.p,
            "p_holm": self.p_holm,
            "test": self.test,
            "reason": self.reason,
            "findings": [vars(finding) for finding in self.findings],
        }


@dataclass(frozen=True)
class CheckResult:
    """Every checked cell, the gravest first. ``notes`` say what was not checked."""

    cells: Sequence[CheckedCell]
    notes: Sequence[str] = ()
    current: str = ""
    baseline: str = ""
    made_at: datetime = field(default_factory=lambda: datetime.now(UTC))

    @cached_property
    def counts(self) -> dict[str, int]:
        """Cells per verdict, all four of them."""
        found = Counter(cell.verdict for cell in self.cells)
        return {verdict: found[verdict] for verdict in VERDICTS}

    @property
    def exit_code(self) -> int:
        """1 when a cell fails; else 3 when one could not be judged, or there is none; else 0."""
        if self.counts[FAIL]:
            return EXIT_CHECK_FAILED
        return EXIT_OK if self.cells and self.counts[PASS] == len(self.cells) else EXIT_NOT_MEASURED

    @property
    def summary(self) -> str:
        """One line."""
        said = ", ".join(f"{count} {verdict}" for verdict, count in self.counts.items() if count)
        word = {EXIT_CHECK_FAILED: "FAILED", EXIT_NOT_MEASURED: "NOT DECIDED", EXIT_OK: "passed"}[self.exit_code]
        sides = f"{self.current} against {self.baseline}"
        return f"check {word}: {said or 'nothing to check'} ({len(self.cells)} cells, {sides})"

    def to_dict(self) -> dict[str, Any]:
        """``verdict`` (the gravest), ``exit_code``, ``counts``, ``current`` and ``baseline`` (what was compared),
        ``notes`` and ``cells``; a cell has the keys of ``CheckedCell.to_dict``. Numbers that are not there are NaN."""
        return {
            "verdict": next((verdict for verdict, count in self.counts.items() if count), CANNOT_TELL),
            "exit_code": self.exit_code,
            "counts": self.counts,
            "current": self.current,
            "baseline": self.baseline,
            "notes": list(self.notes),
            "cells": [cell.to_dict() for cell in self.cells],
        }

"""What is said of a cell, of the mean of several, and of all of them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from clipeval import vocabulary
from clipeval.checks.drops import FACTS, Drop
from clipeval.checks.verdicts import CANNOT_TELL, FAIL, PASS, VERDICTS, Finding
from clipeval.errors import EXIT_CHECK_FAILED, EXIT_NOT_MEASURED, EXIT_OK
from clipeval.names import Names, display_names
from clipeval.shown import Shown

_MOST_TOLD = 5


@dataclass(frozen=True, repr=False)
class CheckedCell:
    """One value against its baseline, or the mean of several. Values are in the metric's own unit; NaN is one that is
    not there.

    ``drop`` is there where the two were compared sample by sample. ``members`` are the data sets of a mean.
    ``decides``: whether the exit code depends on it; not where it could not be decided by itself and is part of a mean.
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
    drop: Drop | None = None
    members: tuple[str, ...] = ()
    decides: bool = True

    def __repr__(self) -> str:
        return f"CheckedCell({self.verdict}: {self.who} · {self.where}: {self.baseline:.4f} -> {self.current:.4f})"

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
        """Data set, task and metric by their names, as test reporters know the cell by."""
        shots = f" · {self.shots} shots" if self.shots is not None else ""
        seed = f" · seed {self.seed}" if self.shots is not None and self.seed is not None else ""
        return f"{self.dataset} · {self.task}{shots}{seed} · {self.metric}"

    @property
    def words(self) -> str:
        """The same for people."""
        return vocabulary.cell(self.dataset, self.task, self.metric, self.shots, self.seed)

    @property
    def who(self) -> str:
        """The checkpoint, and the baseline's where that has another name."""
        return self.named()

    def named(self, names: Names | None = None) -> str:
        """``who`` by display names."""
        shown, before = ((names or Names())[name] for name in (self.model, self.baseline_model))
        return shown if self.model == self.baseline_model else f"{shown} (baseline: {before})"

    @property
    def p(self) -> float:
        """One-sided p value of a loss; NaN without a paired test."""
        return self.drop.test.p if self.drop else math.nan

    @property
    def p_holm(self) -> float:
        """The same, corrected over the cells that were tested, or over the means."""
        return self.drop.p_holm if self.drop else math.nan

    @property
    def test(self) -> str:
        """What ``p`` comes from."""
        return self.drop.test.test if self.drop else ""

    @property
    def is_suspect(self) -> bool:
        """Whether it lost something, and seems to have lost more than is allowed."""
        return self.drop is not None and self.drop.is_suspect

    @property
    def is_undecided(self) -> bool:
        """Whether all that keeps it from passing is that it could not be decided."""
        return self.verdict == CANNOT_TELL and all(
            finding.is_undecided for finding in self.findings if finding.verdict != PASS
        )

    @property
    def place(self) -> tuple[int, float, bool]:
        """Sort key: failures, suspects and what else keeps the check from passing, the gravest first; then means that
        pass, and the other cells."""
        gravity = VERDICTS.index(FAIL) + 0.5 if self.is_suspect else VERDICTS.index(self.verdict)
        rest = 1 if self.members else 2
        return 0 if self.decides and self.verdict != PASS else rest, gravity, not self.members

    def to_dict(self) -> dict[str, Any]:
        """Plain values: the fields, ``verdict``, ``change`` in points (positive: the value grew), ``reason``, and what
        ``Drop.to_dict`` has."""
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
            **(self.drop.to_dict() if self.drop else dict.fromkeys(FACTS)),
            "suspect": self.is_suspect,
            "members": list(self.members),
            "decides": self.decides,
        }


@dataclass(frozen=True, repr=False)
class CheckResult(Shown):
    """Every checked cell, failures and suspects first, and ``means`` of cells that no row of the tables has.

    ``notes`` say what was not checked. ``undecided``: whether what could not be decided is exit code 3 (``fail``) or 0
    (``warn``).
    """

    printer = "clipeval.checks.emit:print_check"

    cells: Sequence[CheckedCell]
    notes: Sequence[str] = ()
    current: str = ""
    baseline: str = ""
    made_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    means: Sequence[CheckedCell] = ()
    undecided: str = "fail"

    @cached_property
    def lines(self) -> list[CheckedCell]:
        """Means and cells in the order in which they are to be read."""
        return sorted([*self.means, *self.cells], key=lambda cell: cell.place)

    @cached_property
    def names(self) -> Names:
        """Display names of all checkpoints on either side."""
        return display_names({"model": name} for cell in self.lines for name in (cell.model, cell.baseline_model))

    @property
    def suites(self) -> list[CheckedCell]:
        """The means, and the averages that are rows of the tables."""
        return [cell for cell in self.lines if cell.members]

    @cached_property
    def counts(self) -> dict[str, int]:
        """Cells per verdict, all four of them."""
        found = Counter(cell.verdict for cell in self.cells)
        return {verdict: found[verdict] for verdict in VERDICTS}

    def __repr__(self) -> str:
        told = [
            f"  {cell.verdict}: {cell.who} · {cell.where}: {cell.reason}" for cell in self.lines if self.stops(cell)
        ]
        more = [f"  and {len(told) - _MOST_TOLD} more"] if len(told) > _MOST_TOLD else []
        end = "Cells: .cells, .suites. Exit code: .exit_code. All of it: print(result)"
        return "\n".join([f"CheckResult: {self.summary}", *told[:_MOST_TOLD], *more, end])

    @cached_property
    def verdict(self) -> str:
        """The gravest of all that decides."""
        found = {cell.verdict for cell in self.lines if cell.decides}
        return next((verdict for verdict in VERDICTS if verdict in found), CANNOT_TELL)

    @property
    def exit_code(self) -> int:
        """1 where a loss is shown; else 3 when something could not be judged, or there is nothing; else 0."""
        if self.verdict in (PASS, FAIL):
            return EXIT_OK if self.verdict == PASS else EXIT_CHECK_FAILED
        nothing = not any(cell.decides for cell in self.lines)
        return EXIT_NOT_MEASURED if nothing or any(map(self.stops, self.lines)) else EXIT_OK

    def stops(self, cell: CheckedCell) -> bool:
        """Whether the exit code is not 0 because of a cell: not where more samples would decide, and that may wait."""
        waits = cell.is_undecided and self.undecided == "warn"
        return cell.verdict != PASS and cell.decides and not waits

    @property
    def summary(self) -> str:
        """One line."""
        means = Counter(mean.verdict for mean in self.means)
        sides = f"({len(self.cells)} cells, {self.current} against {self.baseline})"
        decided = f"; means: {_counted(means)}" if self.means else ""
        return f"check {self._word}: {_counted(self.counts) or 'nothing to check'} {sides}{decided}"

    @property
    def _word(self) -> str:
        if self.verdict in (PASS, FAIL):
            return "passed" if self.verdict == PASS else "FAILED"
        return "NOT DECIDED" + (" (exit 0: --undecided warn)" if self.exit_code == EXIT_OK else "")

    def to_dict(self) -> dict[str, Any]:
        """``verdict`` (of the whole), ``exit_code``, ``undecided``, ``counts`` of the cells, ``current`` and
        ``baseline`` (what was compared), ``notes``, ``cells`` and ``suites``; a cell and a suite, the mean of several,
        have the keys of ``CheckedCell.to_dict``. Numbers that are not there are NaN."""
        return {
            "verdict": self.verdict,
            "exit_code": self.exit_code,
            "undecided": self.undecided,
            "counts": self.counts,
            "current": self.current,
            "baseline": self.baseline,
            "notes": list(self.notes),
            "cells": [cell.to_dict() for cell in self.cells],
            "suites": [cell.to_dict() for cell in self.suites],
        }


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS if counts[verdict])

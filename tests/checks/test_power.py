"""How often the gate passes, fails and cannot tell: the rule on simulated outcomes, and the command on the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from folders import scored

import clipeval
from bench import gate
from clipeval.checks import measured
from clipeval.stats import scored as outcomes

TABLE = {
    "equal, 9 x 360": (0.43, 0.56, 0.01),
    "equal, 9 x 1,000": (0.76, 0.24, 0.00),
    "equal, 9 x 5,000": (0.96, 0.04, 0.00),
    "equal, 37 sets of DataComp": (0.97, 0.03, 0.00),
    "equal, 37 sets, 5 % differ": (0.99, 0.01, 0.00),
    "each lost 0.5 (allowed), 37 sets": (0.39, 0.61, 0.00),
    "each lost exactly 1, 37 sets": (0.00, 0.90, 0.10),
    "each lost 2, 9 x 1,000": (0.00, 0.19, 0.81),
    "each lost 2, 9 x 5,000": (0.00, 0.00, 1.00),
    "each lost 2, 37 sets": (0.00, 0.00, 1.00),
    "one of 37 lost 3 (n 3,669)": (0.04, 0.42, 0.54),
    "one of 9 x 5,000 lost 3": (0.00, 0.12, 0.88),
}
"""Of 2,000 checks, by another program."""


@pytest.mark.parametrize("case", gate.cases(), ids=lambda case: case.title)
def test_the_gate_decides_as_often_as_it_should(case):
    """Within three standard errors of a difference of two such simulations, and rounding to two digits."""
    found, expected = np.array(gate.shares(case)), np.array(TABLE[case.title])
    spread = np.maximum(expected * (1 - expected), 0.005 * 0.995)
    assert (np.abs(found - expected) <= 3 * np.sqrt(2 * spread / gate.CHECKS) + 0.005).all()
    assert set(TABLE) == {other.title for other in gate.cases()}


@pytest.mark.parametrize(("n", "sets"), [(360, 9), (1000, 3), (5000, 9), (200, 1)])
def test_a_drop_of_just_what_is_allowed_is_seldom_let_pass(n, sets):
    """A pass is wrong there in at most 5 %, 7 % with the error of the simulation."""
    assert gate.shares(gate.Case("", np.full(sets, n), 0.01))[0] <= 0.07


@pytest.mark.parametrize(
    "case",
    [
        gate.Case("equal", np.full(4, 1500)),
        gate.Case("lost", np.full(4, 1500), 0.02),
        gate.Case("one lost", np.full(4, 1500), np.array([0.05, 0, 0, 0])),
        gate.Case("unequal sizes", np.array([300, 7000, 1500]), 0.006, 0.08),
        gate.Case("one set", np.array([3001]), 0.004, 0.1),
    ],
    ids=lambda case: case.title,
)
def test_the_command_says_what_the_simulation_counts(case, monkeypatch):
    """``bench.gate.verdicts`` is what ``clipeval.check`` decides on the same outcomes."""
    lost, won, n = gate.outcomes(case, checks=6, seed=7)
    passes, fails = gate.verdicts(lost, won, n)
    for check in range(len(lost)):
        rows, kept = {"a": [], "b": []}, {}
        for number, (one, other, of) in enumerate(zip(lost[check], won[check], n, strict=True)):
            hits = {"a": np.arange(of) % 2 == 0}
            right, wrong = np.flatnonzero(hits["a"]), np.flatnonzero(~hits["a"])
            hits["b"] = hits["a"].copy()
            hits["b"][right[:one]], hits["b"][wrong[:other]] = False, True
            for side in "ab":
                cell, columns = scored(hits[side], dataset=f"d{number}", checkpoint_sha256=side)
                rows[side].append(cell)
                kept[side, f"d{number}"] = pd.DataFrame(columns)

        def find(self, row, kept=kept):
            return outcomes.scored(row["metric"], kept[row["checkpoint_sha256"], row["dataset"]], row["value"])

        monkeypatch.setattr(measured.Results, "scored", find)
        code = clipeval.check(pd.DataFrame(rows["b"]), pd.DataFrame(rows["a"])).exit_code
        assert code == (0 if passes[check] else 1 if fails[check] else 3), check


def test_the_document_shows_what_the_benchmark_prints():
    document = (Path(__file__).parents[2] / "docs" / "gate.md").read_text("utf-8")
    for title, table in gate.tables():
        assert f"{title}:\n\n{table}" in document

"""Results folders with values and per-sample outcomes that a test chooses."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from clipeval.results import samples, table
from clipeval.results.ledger import Ledger


def row(**changes) -> dict:
    """One row of a results table."""
    return {
        "model": "m",
        "checkpoint_sha256": "a" * 64,
        "source": "toy",
        "dataset": "d",
        "split": "test",
        "dataset_fingerprint": "f" * 64,
        "task": "zeroshot_classification",
        "seed": 0,
        "task_version": 1,
        "metric": "acc1",
        "value": 0.5,
        "n": 10,
        "higher_is_better": True,
        "status": "ok",
        "precision": "fp32",
        "protocol": "default",
        **changes,
    }


def folder(out: Path, *cells, suites=()) -> Path:
    """A results folder. A cell is a row, a list of rows, or (rows, columns of its samples file)."""
    ledger, foreign = Ledger(out), []
    for number, cell in enumerate(cells):
        rows, columns = cell if isinstance(cell, tuple) else (cell, {})
        rows = rows if isinstance(rows, list) else [rows]
        name = f"{rows[0]['model']}-{number}".replace("/", "-")
        samples.write(out, name, {column: np.asarray(values) for column, values in columns.items()})
        if any(np.isinf(row["value"]) for row in rows):  # no ledger takes it: what another program wrote in a table
            foreign += rows
        else:
            ledger.add_cell(name, rows)
    for suite in suites:
        ledger.add_suite(suite)
    table.write(out, table.current_rows(ledger) + foreign)
    return out


def scored(hits, ids=None, **changes) -> tuple:
    """A cell of acc1 with the outcomes ``hits``."""
    hits = np.asarray(hits, dtype=bool)
    ids = [f"s{i}" for i in range(len(hits))] if ids is None else ids
    return row(value=float(hits.mean()), n=len(hits), **changes), {"id": ids, "correct": hits}


NEW = {"checkpoint_sha256": "b" * 64}
"""Changes that make a row that of another checkpoint."""

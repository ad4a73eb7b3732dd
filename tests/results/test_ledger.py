"""The ledger keeps everything that was finished, whatever interrupts it."""

from __future__ import annotations

import os

import pytest

from clipeval.errors import StoreError, UsageError
from clipeval.results.ledger import Ledger, exclusive


def row(value=0.5, status="ok"):
    return {"metric": "acc1", "value": value, "status": status}


def test_round_trip_and_last_entry_wins(tmp_path):
    ledger = Ledger(tmp_path)
    ledger.add_cell("a", [row(0.1)])
    ledger.add_cell("b", [row(float("nan"), "failed")])
    ledger.add_cell("a", [row(0.2), row(0.3)])
    suite = {"name": "vtab", "metric": "acc1", "members": [["digits", "acc1"]], "tasks": ["linear_probe"]}
    ledger.add_suite(suite)
    ledger.add_suite(suite)
    again = Ledger(tmp_path)
    assert again.cells["a"] == [row(0.2), row(0.3)]
    assert again.suites == [suite]
    assert again.finished("a")
    assert not again.finished("b")
    assert not again.finished("c")


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_a_half_written_line_costs_only_itself(tmp_path, cut):
    ledger = Ledger(tmp_path)
    ledger.add_cell("a", [row()])
    size = ledger.path.stat().st_size
    ledger.add_cell("b", [row()])
    os.truncate(ledger.path, size + cut)
    damaged = Ledger(tmp_path)
    assert set(damaged.cells) == {"a"}
    assert damaged.damaged_lines == [2]
    damaged.add_cell("c", [row()])
    assert set(Ledger(tmp_path).cells) == {"a", "c"}


def test_a_failed_write_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    ledger = Ledger(tmp_path)
    ledger.add_cell("a", [row()])
    before = ledger.path.read_bytes()

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="No space left"):
        ledger.add_cell("b", [row()])
    assert ledger.path.read_bytes() == before
    assert "b" not in ledger.cells


def test_two_runs_cannot_share_a_folder(tmp_path):
    with exclusive(tmp_path), pytest.raises(UsageError, match="another run"), exclusive(tmp_path):
        pass
    with exclusive(tmp_path):
        pass


def test_unwritable_folder_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"cannot write results here.*-o"), exclusive(tmp_path / "file" / "out"):
        pass

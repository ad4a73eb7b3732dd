"""The ledger keeps everything that was finished, whatever interrupts it."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
from pathlib import Path

import pytest

from clipeval.errors import StoreError, UsageError
from clipeval.results.entries import decode, encode
from clipeval.results.ledger import Ledger, digest_of, exclusive
from clipeval.results.table import current_rows


def row(value=0.5, status="ok", **more):
    return {"model": "m", "dataset": "d", "task": "t", "metric": "acc1", "value": value, "status": status, **more}


def cells(ledger):
    return [record.cell for record in ledger.records]


def test_round_trip_and_last_entry_wins(tmp_path):
    ledger = Ledger(tmp_path)
    ledger.add_cell("a", [row(0.1)])
    ledger.add_cell("b", [row(float("nan"), "failed")])
    ledger.add_cell("a", [row(0.2), row(0.3)])
    suite = {"name": "vtab", "metric": "acc1", "members": [["digits", "acc1"]], "tasks": ["linear_probe"]}
    ledger.add_suite(suite)
    ledger.add_suite(suite)
    for known in (ledger, Ledger(tmp_path)):
        assert [(record.cell, record.finished) for record in known.records] == [("a", True), ("b", False), ("a", True)]
        assert known.records[2].rows == [row(0.2), row(0.3)]
        assert known.suites == [suite]
        assert known.digest == hashlib.sha256(ledger.path.read_bytes()).hexdigest() == digest_of(tmp_path)


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_a_half_written_line_costs_only_itself(tmp_path, cut):
    ledger = Ledger(tmp_path)
    ledger.add_cell("a", [row()])
    size = ledger.path.stat().st_size
    ledger.add_cell("b", [row()])
    os.truncate(ledger.path, size + cut)
    damaged = Ledger(tmp_path)
    assert cells(damaged) == ["a"]
    assert damaged.damaged_lines == [2]
    damaged.add_cell("c", [row()])
    assert cells(Ledger(tmp_path)) == ["a", "c"]


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
    assert cells(ledger) == ["a"]
    assert ledger.digest == digest_of(tmp_path)


def test_two_runs_cannot_share_a_folder(tmp_path):
    with exclusive(tmp_path), pytest.raises(UsageError, match="another run"), exclusive(tmp_path):
        pass
    with exclusive(tmp_path):
        pass


def test_unwritable_folder_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"cannot write results here.*-o"), exclusive(tmp_path / "file" / "out"):
        pass


def test_every_flipped_bit_of_a_line_is_noticed():
    """Unless it leaves the entry as it is."""
    entry = {"kind": "cell", "cell": "a", "rows": [row(0.123456789, ci_low=0.1, ci_high=0.2, n=17)]}
    line = encode(entry).rstrip(b"\n")
    unnoticed = 0
    for place in range(8 * len(line)):
        flipped = bytearray(line)
        flipped[place // 8] ^= 1 << place % 8
        try:
            found = decode(bytes(flipped))
        except ValueError:
            continue
        unnoticed += 1
        assert {name: found.get(name) for name in entry} == entry, bytes(flipped)
    assert unnoticed < 100


WRONG = [
    b"[]",
    b"7",
    b"null",
    b'"cell"',
    b'{"kind": ["cell"]}',
    b'{"kind": "cell"}',
    b'{"kind": "cell", "cell": "a", "rows": []}',
    b'{"kind": "cell", "cell": "a", "rows": {}}',
    b'{"kind": "cell", "cell": 7, "rows": [ROW]}',
    b'{"kind": "cell", "cell": "../../x", "rows": [ROW]}',
    b'{"kind": "cell", "cell": "a/b", "rows": [ROW]}',
    b'{"kind": "cell", "cell": "a\\u0000", "rows": [ROW]}',
    b'{"kind": "cell", "cell": "\\ud800", "rows": [ROW]}',
    b'{"kind": "cell", "cell": "a", "cell": "b", "rows": [ROW]}',
    b'{"kind": "cell", "cell": "a", "rows": [ROW, 1]}',
    b'{"kind": "suite"}',
    b'{"kind": "suite", "suite": {"name": "s", "metric": "acc1", "members": [["a", "acc1"]]}}',
    b'{"kind": "suite", "suite": {"name": "s", "metric": "acc1", "members": [["a"]], "tasks": []}}',
    b'{"kind": "suite", "suite": {"name": "s", "metric": [], "members": [["a", "b"]], "tasks": []}}',
    b'{"kind": "suite", "suite": {"name": "s", "metric": "acc1", "members": [[["a"], "b"]], "tasks": []}}',
    b'{"kind": "suite", "suite": {"name": "s", "metric": "acc1", "members": [["a", "b"]], "tasks": [{}]}}',
    b'{"kind": "checkpoint", "facts": []}',
    b'{"kind": "checkpoint", "facts": {}}',
    b'{"kind": "checkpoint", "facts": {"model": "m", "gmacs": "many"}}',
    b'{"kind": "cell", "cell": "a", "rows": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    b'{"a": ' * 50_000,
    b"\xff\xfe{",
    b'{"kind": "cell", "cell": "a", "rows": [{"n": ' + b"9" * 5000 + b"}]}",
]
VALUES = {
    "model": ([], {}, None, 7, True),
    "dataset": ([], None, 1.5),
    "task": ({"a": 1}, None),
    "status": ("done", 1, None, []),
    "metric": (None, ["acc1"], 1),
    "value": ("0.5", [], None, True, "Infinity", 10**400),
    "n": ("7", 1.5, [7], 2**63, True),
    "ci_low": ({}, "x", -float("inf")),
    "seed": ([0], "0", 10**30),
    "shots": ({"a": []}, "full"),
    "protocol": ([], {}),
    "limit": ([], 1.5),
    "higher_is_better": (1, "yes"),
    "gmacs": ("x", []),
    "checkpoint_sha256": ([], {}),
    "anything": ([], {}),
}


@pytest.mark.parametrize("line", [*WRONG, *((name, value) for name, values in VALUES.items() for value in values)])
def test_whatever_a_line_holds_it_costs_only_itself(tmp_path, line):
    good = {"kind": "cell", "cell": "good", "rows": [row()]}
    if isinstance(line, tuple):
        line = json.dumps({"kind": "cell", "cell": "a", "rows": [row() | {line[0]: line[1]}]}).encode()
    line = line.replace(b"ROW", json.dumps(row()).encode())
    (tmp_path / "ledger.jsonl").write_bytes(line + b"\n" + encode(good) + b'{"kind": "of later", "x": 1}\n')
    ledger = Ledger(tmp_path)
    assert ledger.damaged_lines == [1]
    assert cells(ledger) == ["good"]
    assert [r["value"] for r in current_rows(ledger)] == [0.5]


def test_what_would_be_damaged_is_not_written(tmp_path):
    with pytest.raises(ValueError, match=r"^n$"):
        Ledger(tmp_path).add_cell("a", [row(n=2**70)])
    assert not (tmp_path / "ledger.jsonl").exists()


def test_a_pipe_is_no_ledger(tmp_path):
    os.mkfifo(tmp_path / "ledger.jsonl")
    with pytest.raises(StoreError, match="not a file"):
        Ledger(tmp_path)


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_locks_is_said_and_used(tmp_path, monkeypatch, capsys, code):
    def none(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", none)
    with exclusive(tmp_path):
        pass
    assert capsys.readouterr().err.count("has no locks") == 1


def test_the_first_line_outlives_a_power_loss(tmp_path, monkeypatch):
    """The folder is flushed after the file in it was made."""
    flushed = []
    real = os.fsync

    def fsync(handle):
        flushed.append(str(Path(f"/proc/self/fd/{handle}").readlink()))
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    ledger = Ledger(tmp_path)
    ledger.add_cell("a", [row()])
    ledger.add_cell("b", [row()])
    assert flushed == [str(ledger.path), str(tmp_path), str(ledger.path)]

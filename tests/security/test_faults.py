"""Faults of the machine: no network, a read-only store, a second run, half a line, a clock that goes backwards.

Kills are in test_kill.py, full disks in test_wrong_input.py and test_ledger.py, damaged records in test_records.py.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest
from helpers import image_folder, tiny_checkpoint

import clipeval
from clipeval.evaluation import workbench
from clipeval.results.ledger import exclusive
from clipeval.results.schema import TIMING_COLUMNS


@pytest.fixture
def zoo(tmp_path):
    tiny_checkpoint(tmp_path / "good.pt")
    image_folder(tmp_path / "colours", per_class={"train": 3, "test": 2})
    return tmp_path


@pytest.fixture
def words(zoo):
    """A good checkpoint on a good data set."""
    return ["-m", zoo / "good.pt", "-d", f"folder:{zoo}/colours", "--workers", "0", "-o", zoo / "out"]


REMOTE = [
    *("-m", "ViT-B-32,laion2b_s34b_b79k", "-m", "hf-hub:org/name"),
    *("-d", "imagenet1k", "-d", "hf:org/birds", "-d", "wds:https://example.org/x", "-d", "clip_benchmark:mnist"),
]
MISSING = [
    "laion/CLIP-ViT-B-32-laion2B-s34B-b79K",
    "org/name",
    "imagenet1k",
    "hf:org/birds",
    "https://example.org/x",
    "mnist",
]


@pytest.fixture
def no_network(monkeypatch):
    """Any way to a socket ends the test."""

    def blocked(*arguments, **keywords):
        pytest.fail(f"a socket was opened: {arguments}")

    for name in ("connect", "connect_ex", "sendto", "bind"):
        monkeypatch.setattr(socket.socket, name, blocked)
    for name in ("create_connection", "getaddrinfo", "gethostbyname"):
        monkeypatch.setattr(socket, name, blocked)
    monkeypatch.setenv("CLIPEVAL_DATA", "nowhere")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.delenv("HF_DATASETS_OFFLINE", raising=False)


def test_offline_opens_no_socket_and_names_what_is_missing_first(command, words, no_network):
    """The option alone does it: the hub's own variables are not set. What can be measured is measured after that."""
    code, _, err = command("clipeval", "run", *words, *REMOTE, "-t", "classification", "--offline")
    assert code == 3
    lines = err.splitlines()
    first_result = next(number for number, line in enumerate(lines) if line.startswith("["))
    named = [line for line in lines[:first_result] if line.startswith("missing: ")]
    for what in MISSING:
        assert sum(what in line for line in named) == 1, (what, named)
    assert len(named) == len(MISSING)
    assert any("top-1 " in line for line in lines[first_result:])


def test_offline_names_a_missing_training_split_first(command, zoo, words, no_network):
    (zoo / "b.yaml").write_text(f"datasets: {{x: {{spec: 'folder:{zoo}/colours', train_split: training}}}}\n")
    code, _, err = command(
        "clipeval", "run", "-c", zoo / "b.yaml", *words[:2], *words[4:], "-d", "x", "-t", "probe", "--offline"
    )
    assert code == 3
    assert err.count("has no split 'training'") == 1


def test_a_plan_downloads_nothing_and_does_not_blame_an_option(command, words, no_network):
    code, out, _ = command("clipeval", "run", *words, *REMOTE, "-t", "classification", "--plan", "--json")
    assert code == 0
    reasons = {cell["reason"] for cell in json.loads(out) if cell["state"] == "missing"}
    assert all(any(what in reason for reason in reasons) for what in MISSING)
    assert not any("forbids" in reason for reason in reasons)
    assert all("nothing is downloaded now (--offline" in reason for reason in reasons)


def test_a_second_run_in_the_same_folder_refuses_and_changes_nothing(command, words, zoo):
    """The first one is this process; a --plan only looks, and is allowed."""
    with exclusive(zoo / "out"):
        done = subprocess.run(
            [sys.executable, "-m", "clipeval", "run", *map(str, words)], capture_output=True, text=True
        )
        assert done.returncode == 2
        _, refusal = done.stderr.splitlines()  # behind the line that says what is asked
        assert refusal == (
            f"clipeval: {zoo}/out: another run is writing here. Wait for it, or choose another folder with -o."
        )
        assert sorted(path.name for path in (zoo / "out").iterdir()) == [".lock"]
        assert command("clipeval", "run", *words, "--plan")[0] == 0
    assert command("clipeval", "run", *words, "-t", "classification")[0] == 0


@pytest.fixture
def read_only(monkeypatch):
    """Make a folder read-only, for root too."""

    def seal(folder):
        def refuse(path):
            if Path(os.fspath(path)).is_relative_to(folder):
                raise OSError(errno.EROFS, "Read-only file system", str(path))

        real_open, real_mkdir, real_path_open = os.open, Path.mkdir, Path.open

        def open_(path, flags, *more, **keywords):
            if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                refuse(path)
            return real_open(path, flags, *more, **keywords)

        def mkdir(path, *more, **keywords):
            if not path.is_dir():
                refuse(path)
            return real_mkdir(path, *more, **keywords)

        def path_open(path, mode="r", *more, **keywords):
            if set(mode) & set("wax+"):
                refuse(path)
            return real_path_open(path, mode, *more, **keywords)

        monkeypatch.setattr(os, "open", open_)
        monkeypatch.setattr(Path, "mkdir", mkdir)
        monkeypatch.setattr(Path, "open", path_open)

    return seal


def test_a_read_only_store_that_has_everything_serves(command, words, zoo, cache, read_only):
    first = command("clipeval", "run", *words, "-t", "classification")
    read_only(cache)
    again = command("clipeval", "run", *words[:-1], zoo / "elsewhere", "-t", "classification")
    assert (first[0], again[0]) == (0, 0), again[2]
    tables = [clipeval.read_results(zoo / name).drop(columns=list(TIMING_COLUMNS)) for name in ("out", "elsewhere")]
    pd.testing.assert_frame_equal(*tables)


def test_a_read_only_store_that_lacks_something_says_so(command, words, cache, read_only):
    read_only(cache)
    code, _, err = command("clipeval", "run", *words, "-t", "classification")
    assert code == 3
    assert "Read-only file system" in err
    assert "set CLIPEVAL_CACHE to another folder" in err


def test_half_a_ledger_line_is_reported_and_measured_again(command, words, zoo):
    assert command("clipeval", "run", *words, "-t", "classification", "-t", "probe")[0] == 0
    expected = clipeval.read_results(zoo / "out").drop(columns=list(TIMING_COLUMNS))
    ledger = zoo / "out" / "ledger.jsonl"
    lines = ledger.read_bytes().splitlines(keepends=True)
    ledger.write_bytes(b"".join(lines[:-1]) + lines[-1][: len(lines[-1]) // 2])
    code, _, err = command("clipeval", "run", *words, "-t", "classification", "-t", "probe")
    assert code == 0
    assert (
        f"{ledger}: line {len(lines)} cannot be read (a run was cut off there); what it held is measured again." in err
    )
    pd.testing.assert_frame_equal(clipeval.read_results(zoo / "out").drop(columns=list(TIMING_COLUMNS)), expected)
    assert command("clipeval", "run", *words, "-t", "classification", "-t", "probe", "--rerun", "missing")[0] == 0


def test_a_clock_that_goes_backwards(command, words, zoo, monkeypatch):
    """Durations are of another clock, and the newest line of the ledger counts, whatever time it says."""
    now = [datetime(2030, 1, 1, tzinfo=UTC)]

    class Backwards(datetime):
        @classmethod
        def now(cls, tz=None):
            now[0] -= timedelta(days=1)
            return now[0]

    monkeypatch.setattr(workbench, "datetime", Backwards)
    monkeypatch.setattr(time, "time", lambda: now[0].timestamp())
    assert command("clipeval", "run", *words, "-t", "classification")[0] == 0
    before = clipeval.read_results(zoo / "out")
    assert command("clipeval", "run", *words, "-t", "classification", "--rerun", "always")[0] == 0
    after = clipeval.read_results(zoo / "out")
    assert after.started_at[0] < before.started_at[0]
    for frame in (before, after):
        assert (frame.seconds >= 0).all()
        assert (frame.images_per_second.dropna() > 0).all()
    columns = list(TIMING_COLUMNS)
    pd.testing.assert_frame_equal(after.drop(columns=columns), before.drop(columns=columns))

"""Files that are there whole or not at all, what a kill leaves behind, and what a file system refuses."""

from __future__ import annotations

import json
import os
import time

import pytest

from clipeval import files
from clipeval.errors import StoreError, suggest

HOUR = 3600


def leave(path, age):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("half")
    os.utime(path, (time.time() - age,) * 2)


def test_what_killed_processes_left_goes_and_nothing_else(tmp_path):
    old, young = f".report.html.{'a1' * 16}.tmp", f".report.html.{'b2' * 16}.tmp"
    others = ["report.html.tmp", ".tmp", ".mine.tmp", ".x.zz.tmp", ".report.html", "a.0.tmp"]
    leave(tmp_path / old, 2 * HOUR)
    leave(tmp_path / ".results.csv.4711.tmp", 2 * HOUR)  # as they were named before
    leave(tmp_path / young, 60)
    leave(tmp_path / f".future.{'c3' * 16}.tmp", -2 * HOUR)
    for name in others:
        leave(tmp_path / name, 2 * HOUR)
    files.write_text(tmp_path / "results.csv", "new")
    assert {path.name for path in tmp_path.iterdir()} == {young, f".future.{'c3' * 16}.tmp", "results.csv", *others}


@pytest.mark.parametrize("name", ["n" * 255, "ü" * 127, "👍" * 63])
def test_a_name_as_long_as_a_file_system_takes(tmp_path, name):
    files.write_text(tmp_path / name, "x")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_what_a_file_system_refuses_is_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    for path, reason in (
        (tmp_path / ("n" * 256), "File name too long. Choose another -o."),
        (tmp_path / "file" / "x", f"{tmp_path}/file is a file. Choose another -o."),
        (tmp_path, "Is a directory. Choose another -o."),
    ):
        with pytest.raises(StoreError) as error:
            files.write_text(path, "x")
        assert str(error.value) == f"{path}: cannot write: {reason}"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_full_disk_names_what_helps(tmp_path):
    def full(_):
        raise OSError(28, "No space left on device")

    with pytest.raises(StoreError, match=r"No space left on device\. Free space or choose another -o\."):
        files.write_atomically(tmp_path / "x", full)


def test_names_that_utf8_cannot_hold(tmp_path):
    files.write_json(tmp_path / "a.json", {"\udcff": ["\x1b", "日本"]})
    assert json.loads((tmp_path / "a.json").read_text("utf-8")) == {"\udcff": ["\x1b", "日本"]}
    files.write_text(tmp_path / "a.md", "a\udcffb")
    assert (tmp_path / "a.md").read_text("utf-8") == r"a\udcffb"


@pytest.mark.parametrize(
    ("word", "choices"),
    [
        ("x" * 1_000_000, ["x" * 1_000_000, "xy"]),
        ("accuracy", ["accuracy" * 100_000] * 3),
        ("model 123", (f"model {i}" for i in range(10**6))),
        ("", []),
    ],
)
def test_a_suggestion_takes_no_time(word, choices):
    started = time.monotonic()
    suggest(word, choices)
    assert time.monotonic() - started < 5
    assert suggest("digitz", ["icons", "Digits"]) == " Did you mean 'Digits'?"

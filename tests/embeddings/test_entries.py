"""Store entries: one folder per key, mended by whoever opens it next, emptied once by a run that wants no old value."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from processes import at_once

from clipeval import embeddings
from clipeval.embeddings import entries
from clipeval.embeddings.records import RecordFile
from clipeval.errors import StoreError

KEY = {"weights": "a", "precision": "fp32", "n": 3}


def test_the_folder_depends_on_every_part_of_the_key():
    folders = {entries.folder("images", KEY | change) for change in ({}, {"weights": "b"}, {"n": 4})}
    folders.add(entries.folder("texts", KEY))
    assert len(folders) == 4
    assert entries.folder("images", dict(reversed(KEY.items()))) in folders


@pytest.mark.parametrize("found", [b"", b'{\n "n": 3,', b'{\n "n": 3, and more behind it' * 9])
def test_the_key_is_written_beside_the_records_and_mended(found):
    folder = entries.folder("images", KEY)
    assert json.loads((folder / "key.json").read_text("utf-8")) == KEY | {"version": entries.FORMAT}
    (folder / "key.json").write_bytes(found)
    entries.folder("images", KEY)
    assert json.loads((folder / "key.json").read_text("utf-8")) == KEY | {"version": entries.FORMAT}
    assert [path.name for path in folder.iterdir()] == ["key.json"]


def test_a_folder_that_cannot_be_made_says_what_to_do(cache):
    (cache / "images-3").write_text("")
    with pytest.raises(StoreError, match=r"images-3.*cannot use the cache.*CLIPEVAL_CACHE"):
        entries.folder("images", KEY)


def test_processes_of_one_number_open_the_same_entries(monkeypatch):
    """As containers have them that share a cache: each has its own process 7."""
    monkeypatch.setattr(os, "getpid", lambda: 7)

    def open_all(_: int) -> None:
        for number in range(300):
            entries.folder("images", {"number": number})

    at_once(8, open_all)
    for number in range(300):
        folder = entries.folder("images", {"number": number})
        assert [path.name for path in folder.iterdir()] == ["key.json"]


def records(fresh: str | None = None) -> RecordFile:
    return RecordFile(entries.folder("images", KEY, fresh) / "x.rec", 3, 5)


def filled(fresh: str | None = None) -> list[bool]:
    """Which records were there; now all are."""
    file = records(fresh)
    valid = file.read(np.arange(3))[1]
    file.write(np.arange(3), np.ones((3, 5), np.uint8))
    return valid.tolist()


def test_a_fresh_run_empties_an_entry_once():
    none, every = [False] * 3, [True] * 3
    assert [filled(), filled("a ü"), filled("a ü"), filled()] == [none, none, every, every]
    assert [filled("b"), filled("b")] == [none, every]


def test_fresh_runs_at_the_same_time_do_not_empty_for_each_other_again():
    assert [filled(token)[0] for token in "ababba"] == [False, False, True, True, True, True]


def test_marks_do_not_pile_up():
    for number in range(40):
        records(f"token{number}")
    folder = entries.folder("images", KEY)
    assert len((folder / "fresh").read_text().split()) <= 16
    assert {path.name for path in folder.iterdir()} == {"key.json", "fresh"}


def test_no_process_of_a_fresh_run_sees_what_was_there():
    indices = np.arange(3)
    for attempt in range(25):
        records().write(indices, np.full((3, 5), 1, np.uint8))  # stale

        def compute(number: int, token: str = f"run{attempt}") -> None:
            for turn in range(6):
                file = records(token)
                rows, valid = file.read(indices)
                assert (rows[valid] == 2).all(), "a value from before the run"
                file.write(indices[turn % 3 :], np.full((3 - turn % 3, 5), 2, np.uint8))

        at_once(4, compute)
        rows, valid = records(f"run{attempt}").read(indices)
        assert (rows[valid] == 2).all()


def test_what_an_earlier_version_left_is_named_with_its_size(cache):
    assert embeddings.earlier(cache) is None
    assert embeddings.earlier(cache / "nowhere") is None
    filled()
    assert embeddings.earlier(cache) is None, "nothing of this version"
    old = cache / "pixels" / "ab" / "abcd"
    old.mkdir(parents=True)
    (old / "pixels.rec").write_bytes(bytes(1_500_000))
    (cache / "texts").mkdir()
    line = embeddings.earlier(cache)
    assert "0.002 GB" in line
    for word in line.partition("Delete: ")[2].split():
        shutil.rmtree(Path(word))
    assert embeddings.earlier(cache) is None
    assert filled() == [True] * 3

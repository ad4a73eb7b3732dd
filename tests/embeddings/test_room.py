"""Pixels within a number of bytes: which go, and what a run does without them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from clipeval.embeddings import entries, room
from clipeval.errors import UsageError


def entry(name: str, size: int, used: int) -> Path:
    folder = entries.folder("pixels", {"name": name})
    (folder / "pixels.rec").write_bytes(os.urandom(size))
    os.utime(folder, (used, used))
    return folder


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CLIPEVAL_CACHE", str(tmp_path))
    return tmp_path


def left(*folders: Path) -> list[bool]:
    return [(folder / "pixels.rec").exists() for folder in folders]


def test_the_ones_used_longest_ago_go_first(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, third = (entry(str(k), 100_000, used) for k, used in enumerate((30, 10, 20)))
    mine = entries.folder("pixels", {"name": "mine"})
    monkeypatch.setenv("CLIPEVAL_PIXELS", "350 kB")
    assert room.make(mine, 100_000)
    assert left(first, second, third) == [True, False, True]  # 4 kB of key.json each
    assert room.make(third, 100_000)  # used again
    assert room.make(mine, 200_000)
    assert left(first, third) == [False, True]


def test_an_entry_in_use_does_not_count_against_itself(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = entry("mine", 100_000, 10)
    monkeypatch.setenv("CLIPEVAL_PIXELS", "110000")
    assert room.make(mine, 100_000)
    assert left(mine) == [True]


@pytest.mark.parametrize("text", ["0", "99kB", "0.09999 M"])
def test_what_is_larger_than_all_room_is_not_kept(cache: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    other = entry("other", 100, 10)
    monkeypatch.setenv("CLIPEVAL_PIXELS", text)
    assert not room.make(entries.folder("pixels", {"name": "mine"}), 100_000)
    assert left(other) == [True]


@pytest.mark.parametrize(("text", "size"), [("", 200 * 10**9), ("7", 7), ("1.5TB", 15 * 10**11), (" 2 g ", 2 * 10**9)])
def test_sizes(monkeypatch: pytest.MonkeyPatch, text: str, size: int) -> None:
    monkeypatch.setenv("CLIPEVAL_PIXELS", text)
    assert room.limit() == size


@pytest.mark.parametrize("text", ["x", "-1", "1 PB", "1e9", "9" * 99])
def test_odd_sizes(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("CLIPEVAL_PIXELS", text)
    with pytest.raises(UsageError, match=r"CLIPEVAL_PIXELS=.*: expected a size, as 50GB"):
        room.limit()

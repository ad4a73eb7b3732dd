"""``clipeval cache``: what it shows, and what it removes, which is nothing of others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder with files of ours, of an earlier version, and of somebody else."""
    folder = tmp_path / "cache"
    for name, size in (
        ("pixels-3/aa/x/pixels.rec", 5000),
        ("pixels-3/aa/x/key.json", 7),
        ("pixels/old.rec", 11),
        ("texts-3/t.rec", 300),
        ("pixels-of-mine/holiday.jpg", 13),
        ("notes.txt", 17),
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x" * size)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_bytes(b"x")
    (folder / "images-3").symlink_to(outside)
    monkeypatch.setenv("CLIPEVAL_CACHE", str(folder))
    return folder


def test_what_is_there(cache: Path, command: Any) -> None:
    code, out, _ = command("clipeval", "cache", "list", "--json")
    assert code == 0
    found = {kind["kind"]: kind for kind in json.loads(out)}
    assert (found["pixels"]["bytes"], found["pixels"]["files"]) == (5018, 3)
    assert found["pixels"]["folders"] == [str(cache / "pixels"), str(cache / "pixels-3")]
    assert (found["texts"]["bytes"], found["images"]["bytes"]) == (300, 0)
    _, out, _ = command("clipeval", "cache", "list")
    assert "5.318kB kept in" in out
    assert "image embeddings" not in out


def test_one_kind_is_cleared(cache: Path, command: Any) -> None:
    code, out, _ = command("clipeval", "cache", "clear", "pixels")
    assert code == 0
    assert "5.018kB removed from" in out or "5.018kB removed in" in out
    assert not (cache / "pixels").exists()
    assert not (cache / "pixels-3").exists()
    assert (cache / "texts-3/t.rec").exists()


def test_all_is_cleared_but_nothing_of_others(cache: Path, command: Any) -> None:
    code, out, _ = command("clipeval", "cache", "clear", "--json")
    assert code == 0
    assert {kind["kind"] for kind in json.loads(out)} == {"pixels", "texts"}
    assert sorted(path.name for path in cache.iterdir()) == ["images-3", "notes.txt", "pixels-of-mine"]
    assert (cache / "pixels-of-mine/holiday.jpg").exists()
    assert (cache.parent / "outside/kept").exists()
    assert command("clipeval", "cache", "clear")[0] == 0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("empty",), "ACTION empty: unknown. Choose from: list, clear."),
        (("clear", "pixel"), "Did you mean 'pixels'?"),
        (("list", "pixels"), "takes no kind"),
    ],
)
def test_wrong_words(cache: Path, command: Any, words: tuple[str, ...], says: str) -> None:
    code, _, err = command("clipeval", "cache", *words)
    assert code == 2
    assert says in " ".join(err.split())
    assert (cache / "texts-3/t.rec").exists()

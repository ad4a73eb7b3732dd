"""A folder is listed as pathlib lists it, and read again only where something in it has changed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from helpers import image_folder

from clipeval import datasets, digest
from clipeval.config import DatasetEntry
from clipeval.datasets import contents
from clipeval.datasets.images import SUFFIXES
from clipeval.datasets.listing import below
from clipeval.errors import DataError

NAMES = [
    *("b.jpg", "a/z.png", "a.b.jpeg", "a/b/c.JPG", "a-b/x.webp", ".hidden.jpg", ".jpg", "..jpg", "x.jpg.txt", "none"),
    *("end.", "é.png", "a b/c d.gif", "10.png", "9.png", "Z.bmp", "deep/er/still/1.tif"),
    os.fsdecode(b"\xff.png"),
]


def test_it_is_what_pathlib_finds_in_its_order(tmp_path):
    root = tmp_path / "root"
    for name in NAMES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode("utf-8", "surrogateescape"))
    (root / "folder.png").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/9.jpg").write_bytes(b"x")
    (root / "link").symlink_to(tmp_path / "elsewhere")
    (root / "file.jpg").symlink_to(root / "b.jpg")
    every = sorted(root.rglob("*"))
    found = below(str(root), SUFFIXES)
    images = [path for path in every if path.suffix.lower() in SUFFIXES]
    assert [root / name for name, _ in found.files] == images
    assert [known for _, known in found.files] == [digest.stamp(path) for path in images]
    assert [root / name for name in found.others] == [path for path in every if path not in images]


@pytest.fixture
def root(tmp_path):
    """Six classes whose files are old, so that what is known of them is kept."""
    image_folder(tmp_path / "colours", per_class={"test": 4})
    return tmp_path / "colours"


@pytest.fixture(autouse=True)
def settled(monkeypatch):
    monkeypatch.setattr(digest, "_SETTLED_NS", 0)


@pytest.fixture
def reads(monkeypatch):
    """The files that are read."""
    seen: list[Path] = []
    real = contents.read_regular
    monkeypatch.setattr(contents, "read_regular", lambda path, limit: (seen.append(path), real(path, limit))[1])
    return seen


def opened(root):
    return datasets.open_dataset("colours", DatasetEntry(spec=f"folder:{root}"))


def test_only_the_class_that_changed_is_read_again(root, reads):
    before = opened(root)
    assert len(reads) == len(set(reads)) == len(before) == 25
    reads.clear()
    assert opened(root).fingerprint == before.fingerprint
    assert reads == []
    shutil.copy(root / "test/red/000.png", root / "test/blue/999.png")
    after = opened(root)
    assert {path.parent.name for path in reads} == {"blue"}
    assert len(after) == 26
    assert after.fingerprint != before.fingerprint


def test_a_file_that_is_overwritten_in_its_place_is_seen(root, reads):
    """Its size and its time are what they were, and its folder's too."""
    before = opened(root)
    folder, path = root / "test/red", root / "test/red/000.png"
    known, times = path.stat(), folder.stat().st_mtime_ns
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    with path.open("r+b") as file:
        file.write(data)
    os.utime(path, ns=(known.st_atime_ns, known.st_mtime_ns))
    assert (path.stat().st_size, folder.stat().st_mtime_ns) == (known.st_size, times)
    with pytest.raises(DataError, match=r"red/000.png: the image changed during the run"):
        before.image(before.ids.index("red/000.png"))
    assert opened(root).fingerprint != before.fingerprint


def test_the_first_file_that_cannot_be_read_is_named(root, monkeypatch):
    for name in ("blue/003.png", "blue/001.png", "red/000.png"):
        path = root / "test" / name
        path.unlink()
        path.mkdir()
    with pytest.raises(DataError, match=r"cannot read .*blue/001.png"):
        opened(root)

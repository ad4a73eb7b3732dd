"""Digests of files are remembered as long as the files cannot have changed, and never taken from a damaged memory."""

from __future__ import annotations

import hashlib
import os
import shutil
import time

import pytest

from clipeval import digest
from clipeval.regular import open_regular, read_regular


@pytest.fixture
def settled(monkeypatch):
    """Every file counts as one that changed long ago."""
    monkeypatch.setattr(digest, "_SETTLED_NS", -(10**18))


def true(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def as_before(path, stat):
    """Give a file the times that another state of it had, as ``rsync -t``, ``tar x`` and ``touch -r`` do."""
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def in_place(path, data):
    with path.open("r+b") as file:
        file.write(data)


def anew(path, data):
    path.unlink()
    path.write_bytes(data)


def renamed_over(path, data):
    path.with_suffix(".new").write_bytes(data)
    path.with_suffix(".new").replace(path)


@pytest.mark.parametrize("change", [in_place, anew, renamed_over])
@pytest.mark.parametrize("wait", [0, 0.03])
def test_other_content_of_the_same_size_and_time_is_seen(tmp_path, change, wait):
    """At once, and after the clock of the file system went on; both while the file is young."""
    path = tmp_path / "model.pt"
    path.write_bytes(b"one" * 1000)
    stat = path.stat()
    assert digest.of_file(path) == true(path)
    time.sleep(wait)
    change(path, b"two" * 1000)
    as_before(path, stat)
    assert digest.of_file(path) == true(path)
    assert digest.of_files([path]) == [true(path)]


@pytest.mark.parametrize("change", [in_place, anew, renamed_over])
def test_other_content_of_an_old_file_is_seen(tmp_path, settled, change):
    path = tmp_path / "model.pt"
    path.write_bytes(b"one" * 1000)
    stat = path.stat()
    assert digest.of_file(path) == true(path)
    time.sleep(0.05)  # longer than the clock of the file system needs to go on
    change(path, b"two" * 1000)
    as_before(path, stat)
    assert digest.of_file(path) == true(path)


def test_an_old_file_is_read_once_and_a_young_one_each_time(tmp_path, cache, monkeypatch):
    path = tmp_path / "model.pt"
    path.write_bytes(b"x")
    read = []
    original = digest._hashed
    monkeypatch.setattr(digest, "_hashed", lambda *arguments: read.append(1) or original(*arguments))
    for expected in (1, 2):
        digest.of_file(path)
        assert len(read) == expected
    assert not (cache / "indexes").exists()
    monkeypatch.setattr(digest, "_SETTLED_NS", -(10**18))
    for _ in range(3):
        assert digest.of_file(path) == true(path)
    assert len(read) == 3


def test_times_in_the_future_are_not_trusted(tmp_path, cache):
    path = tmp_path / "model.pt"
    path.write_bytes(b"x")
    os.utime(path, (time.time() + 1e6, time.time() + 1e6))
    assert not digest.is_settled(digest.stamp(path))
    digest.of_file(path)
    assert not (cache / "indexes").exists()


def test_no_bit_flip_of_the_memory_gives_another_digest(tmp_path, cache, settled):
    path = tmp_path / "model.pt"
    path.write_bytes(b"weights")
    expected = digest.of_file(path)
    [kept] = (cache / "indexes").glob("*.json")
    data = kept.read_bytes()
    for place in range(len(data)):
        for bit in range(8):
            kept.write_bytes(data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :])
            assert digest.of_file(path) == expected
    for wrong in (b"", b"\xff\xfe", b"{}", b"[]", data[:-1], data + b" "):
        kept.write_bytes(wrong)
        assert digest.of_file(path) == expected


def test_a_memory_that_a_kill_cut_off_is_made_whole(tmp_path, cache, settled):
    path = tmp_path / "model.pt"
    path.write_bytes(b"weights")
    expected = digest.of_file(path)
    [kept] = (cache / "indexes").iterdir()
    whole = kept.read_bytes()
    for size in range(len(whole)):
        kept.write_bytes(whole[:size])
        assert digest.of_file(path) == expected
        assert kept.read_bytes() == whole
    assert list((cache / "indexes").iterdir()) == [kept], "nothing else, at no time"


def test_the_memory_of_another_file_is_not_taken(tmp_path, cache, settled):
    """A file of the memory that was renamed, or restored under another name, answers for nothing."""
    for name in "ab":
        (tmp_path / name).write_bytes(name.encode())
        digest.of_file(tmp_path / name)
    first, second = sorted((cache / "indexes").glob("*.json"))
    shutil.copy(first, second)
    assert digest.of_file(tmp_path / "a") == true(tmp_path / "a")
    assert digest.of_file(tmp_path / "b") == true(tmp_path / "b")


def test_an_unwritable_memory_is_none(tmp_path, monkeypatch, settled):
    (tmp_path / "file").write_bytes(b"x")
    monkeypatch.setenv("CLIPEVAL_CACHE", str(tmp_path / "file"))
    assert digest.of_file(tmp_path / "file") == true(tmp_path / "file")


def test_a_file_that_changes_while_it_is_read_is_an_error(tmp_path, settled):
    path = tmp_path / "shard.tar"
    path.write_bytes(b"one")
    with pytest.raises(OSError, match="it changed while it was read") as caught:
        digest.remembered("lines", [path], lambda: path.write_bytes(b"longer"))
    assert caught.value.filename == str(path)


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "link to a device"])
def test_only_regular_files_are_read(tmp_path, kind):
    path = tmp_path / "a.jpg"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero" if kind == "link to a device" else "/dev/null")
    for function in (open_regular, lambda path: read_regular(path, 100), digest.of_file):
        with pytest.raises(OSError, match=r"not a regular file|Is a directory"):
            function(path)


def test_a_file_larger_than_allowed_is_not_read(tmp_path):
    with (tmp_path / "sparse.jpg").open("wb") as file:
        file.truncate(100 << 30)
    with pytest.raises(OSError, match=r"its 107,374,182,400 bytes are more than the limit of 1,000"):
        read_regular(tmp_path / "sparse.jpg", 1000)
    (tmp_path / "small").write_bytes(b"abc")
    assert read_regular(tmp_path / "small", 3) == b"abc"

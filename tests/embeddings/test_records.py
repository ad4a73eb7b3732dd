"""Records survive what happens to files: kills, full disks, flipped bits, several writers."""

from __future__ import annotations

import errno
import os
import shutil

import numpy as np
import pytest

from clipeval.embeddings import records
from clipeval.embeddings.records import RecordFile, split_records, with_checksum
from clipeval.errors import StoreError


@pytest.fixture
def file(tmp_path):
    return RecordFile(tmp_path / "entry" / "x.rec", 7, 12)


def rows(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 12)).astype(np.uint8)


def test_absent_file_has_no_valid_record(file):
    read, valid = file.read(np.arange(7))
    assert not valid.any()
    assert read.shape == (7, 12)


def test_what_is_written_is_read_in_any_order(file):
    values = rows(7)
    for chosen in ([5, 6], [0], [2, 3, 4]):
        file.write(np.array(chosen), values[chosen])
    read, valid = file.read(np.array([6, 0, 1, 3, 4]))
    assert valid.tolist() == [True, True, False, True, True]
    np.testing.assert_array_equal(read[valid], values[[6, 0, 3, 4]])


def test_float_rows_keep_their_bits(tmp_path):
    values = np.array([[np.pi, -0.0, 1e-40]], np.float32)
    file = RecordFile(tmp_path / "f.rec", 1, 12)
    file.write(np.array([0]), values)
    assert file.read(np.array([0]))[0].view(np.float32).tobytes() == values.tobytes()


@pytest.mark.parametrize("cut", range(0, 7 * 16, 5))
def test_a_cut_off_file_loses_only_what_is_cut(file, cut):
    file.write(np.arange(7), rows(7))
    os.truncate(file.path, cut)
    _, valid = file.read(np.arange(7))
    assert valid.tolist() == [16 * (row + 1) <= cut for row in range(7)]


def test_a_flipped_bit_invalidates_one_record(file):
    file.write(np.arange(7), rows(7))
    data = bytearray(file.path.read_bytes())
    data[16 * 3 + 9] ^= 4
    file.path.write_bytes(data)
    assert file.read(np.arange(7))[1].tolist() == [True] * 3 + [False] + [True] * 3


def test_zeros_are_not_a_record(file):
    file.path.parent.mkdir()
    file.path.write_bytes(bytes(7 * 16))
    assert not file.read(np.arange(7))[1].any()


def test_full_disk_is_reported_with_what_to_do(file, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(StoreError, match=r"no space is left.*CLIPEVAL_CACHE"):
        file.write(np.array([0]), rows(1))


def test_a_system_call_that_reads_little_loses_no_record(file, monkeypatch):
    file.write(np.arange(7), rows(7))
    read = os.preadv
    monkeypatch.setattr(os, "preadv", lambda handle, views, offset: read(handle, [views[0][:5]], offset))
    got, valid = file.read(np.arange(7))
    assert valid.all()
    np.testing.assert_array_equal(got, rows(7))


@pytest.mark.parametrize("piece", [1, 16, 40, 1 << 26])
def test_reading_and_writing_go_in_pieces(file, piece, monkeypatch):
    asked = []
    read, write = os.preadv, os.pwrite
    monkeypatch.setattr(records, "_PIECE_BYTES", piece)
    monkeypatch.setattr(records, "_READ_BYTES", piece)
    monkeypatch.setattr(
        os, "preadv", lambda handle, views, offset: asked.append(len(views[0])) or read(handle, views, offset)
    )
    monkeypatch.setattr(
        os, "pwrite", lambda handle, data, offset: asked.append(len(data)) or write(handle, data, offset)
    )
    chosen = np.array([0, 1, 2, 4, 5, 6])
    file.write(chosen, rows(7)[chosen])
    got, valid = file.read(np.arange(7))
    assert valid.tolist() == [True] * 3 + [False] + [True] * 3
    np.testing.assert_array_equal(got[chosen], rows(7)[chosen])
    assert max(asked) <= max(piece, 16)


def test_a_file_larger_than_one_system_call_reads(tmp_path):
    """Linux gives at most 2,147,479,552 bytes; the holes of this file take no room, nor do the rows not read."""
    n, row_bytes = 2060, 1 << 20
    file = RecordFile(tmp_path / "large.rec", n, row_bytes)
    values = np.random.default_rng(0).integers(0, 256, (3, row_bytes)).astype(np.uint8)
    there = np.array([0, n - 2, n - 1])
    file.write(there, values)
    assert file.path.stat().st_size > 1 << 31
    read, valid = file.read(np.arange(n))
    assert np.flatnonzero(valid).tolist() == there.tolist()
    np.testing.assert_array_equal(read[there], values)


def test_a_read_error_is_reported_with_what_to_do(file, monkeypatch):
    def broken(*_):
        raise OSError(errno.EIO, "Input/output error")

    file.write(np.arange(7), rows(7))
    monkeypatch.setattr(os, "preadv", broken)
    with pytest.raises(StoreError, match=r"x\.rec: cannot use the cache: Input/output error.*CLIPEVAL_CACHE"):
        file.read(np.arange(7))


def test_a_deleted_cache_is_made_again(file):
    file.write(np.arange(7), rows(7))
    shutil.rmtree(file.path.parent)
    assert not file.read(np.arange(7))[1].any()
    file.write(np.array([2]), rows(1))
    assert file.read(np.arange(7))[1].tolist() == [False, False, True] + [False] * 4


def test_a_cache_deleted_while_a_file_is_opened(file, monkeypatch):
    opened, times = os.open, iter(range(2))

    def after_deletion(path, *rest):
        if next(times, None) is not None:
            file.path.parent.rmdir()
        return opened(path, *rest)

    monkeypatch.setattr(os, "open", after_deletion)
    file.write(np.array([2]), rows(1))
    assert file.read(np.arange(7))[1].sum() == 1


def test_split_records_leaves_out_a_cut_tail_and_bad_records():
    good = [bytes([i]) * 5 for i in range(3)]
    data = b"".join(map(with_checksum, good))
    bad = bytearray(data)
    bad[9 + 5] ^= 1
    assert split_records(data[:-1], 5) == good[:2]
    assert split_records(bytes(bad), 5) == [good[0], good[2]]

"""Records survive what happens to files: kills, full disks, flipped bits, several writers."""

from __future__ import annotations

import errno
import os

import numpy as np
import pytest

from clipeval.embeddings.records import RecordFile, entry_folder, split_records, with_checksum
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


def test_split_records_leaves_out_a_cut_tail_and_bad_records():
    good = [bytes([i]) * 5 for i in range(3)]
    data = b"".join(map(with_checksum, good))
    bad = bytearray(data)
    bad[9 + 5] ^= 1
    assert split_records(data[:-1], 5) == good[:2]
    assert split_records(bytes(bad), 5) == [good[0], good[2]]


def test_entry_folder_depends_on_every_part_of_the_key(tmp_path):
    key = {"weights": "a", "precision": "fp32", "n": 3}
    folders = {entry_folder(tmp_path, "images", key | change) for change in ({}, {"weights": "b"}, {"n": 4})}
    assert len(folders) == 3
    assert entry_folder(tmp_path, "images", dict(reversed(key.items()))) in folders

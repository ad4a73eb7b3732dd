"""Embeddings in a bucket, on fsspec's in-memory and local file systems."""

from __future__ import annotations

import fsspec
import numpy as np
import pandas as pd
import pytest
from helpers import caption_shards, tiny_checkpoint
from processes import at_once

import clipeval
from clipeval.embeddings.bucket import Bucket, BucketRecords, store_url
from clipeval.errors import StoreError, UsageError
from clipeval.results.schema import TIMING_COLUMNS

KEY = {"a": 1}


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("CLIPEVAL_STORE", f"file://{tmp_path}/store/")
    return store_url()


def records(store: str) -> BucketRecords:
    return BucketRecords.open(store, "images", KEY, n=9, row_bytes=5)


def test_records_of_several_writers_are_merged(store):
    rows = np.arange(45, dtype=np.uint8).reshape(9, 5)
    for indices in ([1, 2], [7], [2, 3]):
        writer = records(store)
        writer.write(np.array(indices), rows[indices])
        writer.flush()
    found, valid = records(store).read(np.arange(9))
    assert valid.nonzero()[0].tolist() == [1, 2, 3, 7]
    np.testing.assert_array_equal(found[valid], rows[valid])


def test_what_is_not_flushed_is_not_there_and_many_are(store, monkeypatch):
    monkeypatch.setattr(Bucket, "enough", 3)
    writer = records(store)
    writer.write(np.array([0, 1]), np.ones((2, 5), np.uint8))
    assert not records(store).read(np.arange(9))[1].any()
    writer.write(np.array([4]), np.ones((1, 5), np.uint8))
    assert records(store).read(np.arange(9))[1].sum() == 3


def test_a_damaged_record_is_absent(store, tmp_path):
    writer = records(store)
    writer.write(np.arange(3), np.ones((3, 5), np.uint8))
    writer.flush()
    (path,) = tmp_path.glob("store/images-3/*/*/*.rec")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert records(store).read(np.arange(3))[1].tolist() == [True, False, True]


def test_a_fresh_run_empties_an_entry_once(store):
    def filled(fresh=None):
        opened = BucketRecords.open(store, "images", KEY, 9, 5, fresh)
        found = opened.read(np.arange(9))[1].sum()
        opened.write(np.arange(9), np.ones((9, 5), np.uint8))
        opened.flush()
        return found

    assert [filled(token) for token in (None, None, "a", "a", None, "b", "a", "b")] == [0, 9, 0, 9, 9, 0, 9, 9]


def test_no_process_of_a_fresh_run_sees_what_was_there(store):
    indices = np.arange(9)
    for attempt in range(10):
        stale = records(store)
        stale.write(indices, np.full((9, 5), 1, np.uint8))
        stale.flush()

        def compute(number, token=f"run{attempt}"):
            for _ in range(3):
                opened = BucketRecords.open(store, "images", KEY, 9, 5, token)
                rows, valid = opened.read(indices)
                assert (rows[valid] == 2).all(), "a value from before the run"
                opened.write(indices[number:], np.full((9 - number, 5), 2, np.uint8))
                opened.flush()

        at_once(2, compute)


def test_an_object_that_is_gone_holds_nothing(store, tmp_path):
    writer = records(store)
    writer.write(np.arange(3), np.ones((3, 5), np.uint8))
    writer.flush()
    bucket = Bucket(store, "images", KEY, 13)
    (path,) = bucket.labels()
    next(tmp_path.glob("store/images-3/*/*/*.rec")).unlink()
    assert bucket.read(path) == []


def test_other_keys_are_other_entries():
    first, second = (Bucket("memory://store", "images", key, 5) for key in (KEY, KEY | {"b": 2}))
    first.add("0-0", [b"abcde"])
    assert list(first.labels().values()) == ["0-0"]
    assert second.labels() == {}
    assert b'"b": 2' in fsspec.filesystem("memory").cat_file(f"{second.url.removeprefix('memory:/')}/key.json")


@pytest.mark.parametrize("url", ["/tmp/store", "nosuch://bucket/x"])
def test_what_is_no_store(url, monkeypatch):
    monkeypatch.setenv("CLIPEVAL_STORE", url)
    with pytest.raises(UsageError, match="CLIPEVAL_STORE="):
        records(store_url())


def test_a_store_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot use the store"):
        records(f"file://{tmp_path}/file")


def test_a_run_with_a_bucket_gives_the_same_table(tmp_path, monkeypatch):
    model, data = tiny_checkpoint(tmp_path / "a.pt"), caption_shards(tmp_path / "pairs")
    tables = []
    for number, url in enumerate([None, f"file://{tmp_path}/store", f"file://{tmp_path}/store"]):
        monkeypatch.setenv("CLIPEVAL_CACHE", str(tmp_path / f"cache{number}"))
        if url:
            monkeypatch.setenv("CLIPEVAL_STORE", url)
        table = clipeval.run(str(model), f"wds:{data}", "retrieval", out=tmp_path / f"out{number}", workers=0)
        tables.append(table.drop(columns=list(TIMING_COLUMNS)))
        assert number == 0 or not (tmp_path / f"cache{number}" / "images-3").exists()
    pd.testing.assert_frame_equal(tables[1], tables[0])
    pd.testing.assert_frame_equal(tables[2], tables[0])
    assert not (tmp_path / "cache2" / "pixels-2").exists()  # nothing was encoded again

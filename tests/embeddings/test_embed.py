"""Embedding through the stores gives what the bare model gives, and computes only what is missing."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import time
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import image_folder, tiny_checkpoint

from clipeval import config, datasets, identity, models
from clipeval.datasets.subset import Subset
from clipeval.embeddings import images, pixels, texts
from clipeval.embeddings.inputs import EmbeddedInputs
from clipeval.embeddings.pixels import LoaderSettings, pixel_file
from clipeval.errors import DataError, ModelError, StoreError


@pytest.fixture
def encoder(tmp_path):
    [spec] = models.resolve([str(tiny_checkpoint(tmp_path / "tiny.pt"))], config.load())
    return models.load(spec, device="cpu", precision="fp32", offline=True)


@pytest.fixture(autouse=True)
def few_images_are_many(monkeypatch):
    """Processes decode the small sets of these tests too."""
    monkeypatch.setattr(pixels, "_FEW_IMAGES", 1)


@pytest.fixture
def dataset(tmp_path):
    image_folder(tmp_path / "colours")
    selection = datasets.resolve([f"folder:{tmp_path}/colours"], config.load())
    [(name, entry)] = selection.datasets.items()
    return datasets.open_dataset(name, entry)


def text_store(encoder, fresh=None):
    return texts.TextStore(encoder.identity.text_key(encoder.precision), encoder.embed_dim, fresh)


class Counter:
    def __init__(self):
        self.fresh = self.stored = 0

    def __call__(self, items, stored):
        self.fresh += items - stored
        self.stored += stored


def test_image_embeddings_are_the_models_own(encoder, dataset):
    got = images.embed(encoder, dataset, np.arange(len(dataset)), LoaderSettings(7, 2), Counter())
    own = np.stack([encoder.pixels(dataset.image(i)) for i in range(len(dataset))])
    expected = encoder.encode_images(torch.from_numpy(own)).numpy()
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-6)


def bare(encoder, dataset, indices):
    own = np.stack([encoder.pixels(dataset.image(int(i))) for i in indices])
    return encoder.encode_images(torch.from_numpy(own)).numpy()


@pytest.mark.parametrize("wanted", [np.arange(11), np.array([9, 2, 30, 3, 8, 4, 9])])
def test_only_missing_images_are_encoded(encoder, dataset, wanted):
    first = Counter()
    images.embed(encoder, dataset, np.array([3, 4, 9]), LoaderSettings(2, 0), first)
    second = Counter()
    got = images.embed(encoder, dataset, wanted, LoaderSettings(2, 0), second)
    stored = int(np.isin(wanted, [3, 4, 9]).sum())
    assert (first.fresh, first.stored, second.fresh, second.stored) == (3, 0, len(wanted) - stored, stored)
    np.testing.assert_allclose(got, bare(encoder, dataset, wanted), rtol=0, atol=1e-6)


def test_what_was_just_encoded_is_not_read_back(encoder, dataset, monkeypatch):
    """A file system that forgets, or a cache deleted under the run, costs time and no result."""
    monkeypatch.setattr(os, "pwrite", lambda file, data, offset: len(data))
    got = images.embed(encoder, dataset, np.arange(11), LoaderSettings(4, 0), Counter())
    np.testing.assert_allclose(got, bare(encoder, dataset, range(11)), rtol=0, atol=1e-6)


def test_keys_are_made_of_identities(encoder, dataset, cache, monkeypatch):
    images.embed(encoder, dataset, np.arange(2), LoaderSettings(), Counter())
    text_store(encoder)
    [image], [text], [pixel] = (
        [json.loads(path.read_text()) for path in cache.glob(f"{kind}-3/*/*/key.json")]
        for kind in ("images", "texts", "pixels")
    )
    rest = {"version": 3, "dataset": dataset.fingerprint, "n": len(dataset)}
    assert image == rest | {"encoder": encoder.identity.image_key("fp32")}
    assert text == {"version": 3, "encoder": encoder.identity.text_key("fp32")}
    assert pixel == rest | identity.pixel_key(encoder.preprocessing.spatial_key())
    before = pixel_file(dataset, encoder).path
    monkeypatch.setattr(metadata, "version", lambda name: f"{name} of another day")
    assert pixel_file(dataset, encoder).path != before


def test_a_fresh_run_takes_nothing_from_the_stores(encoder, dataset):
    indices = np.arange(len(dataset))
    stale = pixel_file(dataset, encoder), images.embedding_file(encoder, dataset)
    for file in stale:
        file.write(indices, np.zeros((len(dataset), file.row_bytes), np.uint8))
    old_words = text_store(encoder)
    old_words.add(["a", "b"], np.ones((2, encoder.embed_dim), np.float32))
    assert not images.embed(encoder, dataset, indices, LoaderSettings(), Counter()).any()
    settings, count = LoaderSettings(8, 2, "run1"), Counter()
    got = images.embed(encoder, dataset, indices, settings, count)
    np.testing.assert_allclose(got, bare(encoder, dataset, indices), rtol=0, atol=1e-6)
    assert text_store(encoder, "run1").missing(["a", "b", "c"]) == ["a", "b", "c"]
    assert (count.fresh, count.stored) == (len(dataset), 0)
    images.embed(encoder, dataset, indices, settings, count)
    assert (count.fresh, count.stored) == (len(dataset), len(dataset)), "everything once in a run"


def test_inputs_of_a_fresh_run_leave_nothing_old_to_a_task_that_reads_stores_itself(encoder, dataset):
    indices = np.arange(3)
    for file in (pixel_file(dataset, encoder), images.embedding_file(encoder, dataset)):
        file.write(indices, np.zeros((3, file.row_bytes), np.uint8))
    subset = Subset(dataset, np.arange(5))
    EmbeddedInputs(encoder, subset, text_store(encoder), lambda kind: None, LoaderSettings(fresh="run1"), Counter())
    assert not pixel_file(dataset, encoder).read(indices)[1].any()
    assert not images.embedding_file(encoder, dataset).read(indices)[1].any()


def test_images_that_were_taken_are_the_takers_own(encoder, dataset):
    inputs = EmbeddedInputs(
        encoder, dataset, text_store(encoder), lambda kind: None, LoaderSettings(workers=0), Counter()
    )
    kept = inputs.images()
    expected = kept.copy()
    assert inputs.images() is kept
    taken = inputs.take_images()
    taken[:] = 0
    again = inputs.images()
    assert (again == expected).all()
    assert again is not taken


class Changed:
    """A data set whose image 9 cannot be had: broken, or changed since it was fingerprinted; ``slow`` in seconds."""

    def __init__(self, dataset, slow=0.0):
        self._dataset, self._slow = dataset, slow

    def __len__(self):
        return len(self._dataset)

    def __getattr__(self, name):
        return getattr(self.__dict__["_dataset"], name)

    def image(self, index):
        time.sleep(self._slow)
        if index == 9:
            raise DataError(f"{self._dataset.ids[9]}: changed during the run")
        return self._dataset.image(index)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_image_that_changed_leaves_nothing_of_its_batch_in_the_stores(encoder, dataset, workers):
    with pytest.raises(DataError, match="changed during the run"):
        images.embed(encoder, Changed(dataset), np.arange(12), LoaderSettings(3, workers), Counter())
    for file in (pixel_file(dataset, encoder), images.embedding_file(encoder, dataset)):
        assert not file.read(np.arange(9, 12))[1].any()
    got = images.embed(encoder, dataset, np.arange(12), LoaderSettings(3, 0), Counter())
    np.testing.assert_allclose(got, bare(encoder, dataset, range(12)), rtol=0, atol=1e-6)


def interrupted(*_):
    raise KeyboardInterrupt


def test_decoder_processes_end_with_an_interrupt(encoder, dataset):
    """Even while its traceback is kept, as a notebook does."""
    before = signal.signal(signal.SIGALRM, interrupted)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.7)
        with pytest.raises(KeyboardInterrupt) as waiting:  # for a decoder
            images.embed(encoder, Changed(dataset, slow=0.2), np.arange(9), LoaderSettings(1, 2), Counter())
        assert multiprocessing.active_children() == []
        with pytest.raises(KeyboardInterrupt) as storing:  # with batches still to come
            images.embed(encoder, dataset, np.arange(9), LoaderSettings(1, 2), interrupted_after(2))
        assert multiprocessing.active_children() == []
    finally:
        signal.signal(signal.SIGALRM, before)
    assert waiting.traceback
    assert storing.traceback


def interrupted_after(count):
    calls = iter(range(count))
    return lambda *_: next(calls, None) is None and interrupted()


def test_a_damaged_embedding_is_made_again(encoder, dataset):
    indices = np.arange(len(dataset))
    first = images.embed(encoder, dataset, indices, LoaderSettings(64, 0), Counter())
    path = images.embedding_file(encoder, dataset).path
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    count = Counter()
    again = images.embed(encoder, dataset, indices, LoaderSettings(64, 0), count)
    assert count.fresh == 1
    np.testing.assert_allclose(again, first, rtol=0, atol=1e-6)


@pytest.mark.parametrize("batch_size", [3, 64])
def test_text_embeddings_are_the_models_own_at_full_length(encoder, batch_size):
    wanted = [f"a photo of {'very ' * (i % 9)}thing number {i}" for i in range(23)]
    store = text_store(encoder)
    texts.embed(encoder, store, wanted + wanted[:5], batch_size, Counter())
    expected = encoder.encode_tokens(encoder.tokenize(wanted)).numpy()
    np.testing.assert_allclose(unit(store.get(wanted)), unit(expected), rtol=0, atol=1e-6)


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_a_unique_text_is_encoded_once_in_any_store_object(encoder):
    count = Counter()
    for words in (["a", "b", "a"], ["b", "c"], ["a", "b", "c"]):
        store = text_store(encoder)
        texts.embed(encoder, store, words, 2, count)
    assert count.fresh == 3


def test_another_key_shares_nothing(encoder):
    store = text_store(encoder)
    store.add(["a"], np.ones((1, encoder.embed_dim), np.float32))
    other = texts.TextStore(encoder.identity.text_key("bf16"), encoder.embed_dim)
    assert other.missing(["a"]) == ["a"]


def test_non_finite_text_is_named_and_not_stored(encoder):
    store = text_store(encoder)
    vectors = np.ones((2, encoder.embed_dim), np.float32)
    vectors[1, 3] = np.inf
    store.add(["good", "bad"], vectors)
    assert store.get(["good"]).shape == (1, encoder.embed_dim)
    with pytest.raises(ModelError, match=r"text .bad..*not finite"):
        store.get(["good", "bad"])
    assert store.missing(["good", "bad", "new"]) == ["new"], "what is known to fail is not tried again"
    with pytest.raises(LookupError, match="text 'new' has not been encoded"):
        store.get(["new"])
    assert text_store(encoder).missing(["good", "bad"]) == ["bad"]


def test_a_store_gives_another_one_all_it_knows(encoder, monkeypatch, tmp_path):
    vectors = np.random.default_rng(0).normal(size=(3, encoder.embed_dim)).astype(np.float32)
    store = text_store(encoder)
    store.add(["a", "b", "c"], vectors)
    monkeypatch.setenv("CLIPEVAL_CACHE", str(tmp_path / "elsewhere"))
    other = text_store(encoder)
    other.add(["b"], vectors[1:2])
    other.receive(store.bodies())
    for found in (other, text_store(encoder)):
        assert np.array_equal(found.get(["c", "a", "b"]), vectors[[2, 0, 1]])


def test_a_failed_append_leaves_the_segment_readable(encoder, monkeypatch):
    store = text_store(encoder)
    vector = np.ones((1, encoder.embed_dim), np.float32)
    store.add(["a"], vector)

    written = os.pwrite

    def full(file, data, offset):
        if len(data) > 20:
            return written(file, data[:20], offset)
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(StoreError, match="no space is left"):
            store.add(["b"], vector)
    store.add(["c"], vector)
    again = text_store(encoder)
    assert again.missing(["a", "b", "c"]) == ["b"]


def test_texts_that_cannot_be_read_are_reported_with_what_to_do(encoder, monkeypatch):
    def broken(_):
        raise OSError(5, "Input/output error")

    store = text_store(encoder)
    store.add(["a"], np.ones((1, encoder.embed_dim), np.float32))
    read = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: broken(path) if path.suffix == ".rec" else read(path))
    with pytest.raises(StoreError, match=r"rec: cannot use the cache: Input/output error"):
        text_store(encoder)


def test_texts_outlive_a_cache_deleted_under_the_run(encoder, cache):
    vector = np.ones((1, encoder.embed_dim), np.float32)
    store = text_store(encoder)
    store.add(["a"], vector)
    shutil.rmtree(cache)
    store.add(["b"], vector)
    assert store.get(["a", "b"]).shape == (2, encoder.embed_dim)
    assert text_store(encoder).missing(["a", "b"]) == ["a"]

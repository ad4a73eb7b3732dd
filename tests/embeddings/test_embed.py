"""Embedding through the stores gives what the bare model gives, and computes only what is missing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import image_folder, tiny_checkpoint

from clipeval import config, datasets, models
from clipeval.embeddings import images, texts
from clipeval.embeddings.images import LoaderSettings, one_behind
from clipeval.errors import ModelError, StoreError


@pytest.fixture
def encoder(tmp_path):
    [spec] = models.resolve([str(tiny_checkpoint(tmp_path / "tiny.pt"))], config.load())
    return models.load(spec, device="cpu", precision="fp32", offline=True)


@pytest.fixture
def dataset(tmp_path):
    image_folder(tmp_path / "colours")
    selection = datasets.resolve([f"folder:{tmp_path}/colours"], config.load())
    [(name, entry)] = selection.datasets.items()
    return datasets.open_dataset(name, entry)


class Counter:
    def __init__(self):
        self.fresh = self.stored = 0

    def __call__(self, items, stored):
        self.fresh += items - stored
        self.stored += stored


def test_image_embeddings_are_the_models_own(encoder, dataset):
    got = images.embed(encoder, dataset, np.arange(len(dataset)), LoaderSettings(7, 2), Counter())
    pixels = np.stack([encoder.pixels(dataset.image(i)) for i in range(len(dataset))])
    expected = encoder.encode_images(torch.from_numpy(pixels)).numpy()
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-6)


def test_only_missing_images_are_encoded(encoder, dataset):
    first = Counter()
    images.embed(encoder, dataset, np.array([3, 4, 9]), LoaderSettings(2, 0), first)
    second = Counter()
    images.embed(encoder, dataset, np.arange(11), LoaderSettings(2, 0), second)
    assert (first.fresh, first.stored, second.fresh, second.stored) == (3, 0, 8, 3)


def test_a_damaged_embedding_is_made_again(encoder, dataset):
    indices = np.arange(len(dataset))
    first = images.embed(encoder, dataset, indices, LoaderSettings(64, 0), Counter())
    path = images.embedding_file(encoder.key(), encoder.embed_dim, dataset).path
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
    store = texts.TextStore(encoder.key(), encoder.embed_dim)
    texts.embed(encoder, store, wanted + wanted[:5], batch_size, Counter())
    expected = encoder.encode_tokens(encoder.tokenize(wanted)).numpy()
    np.testing.assert_allclose(unit(store.get(wanted)), unit(expected), rtol=0, atol=1e-6)


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_a_unique_text_is_encoded_once_in_any_store_object(encoder):
    count = Counter()
    for words in (["a", "b", "a"], ["b", "c"], ["a", "b", "c"]):
        store = texts.TextStore(encoder.key(), encoder.embed_dim)
        texts.embed(encoder, store, words, 2, count)
    assert count.fresh == 3


def test_another_key_shares_nothing(encoder):
    store = texts.TextStore(encoder.key(), encoder.embed_dim)
    store.add(["a"], np.ones((1, encoder.embed_dim), np.float32))
    other = texts.TextStore({**encoder.key(), "precision": "bf16"}, encoder.embed_dim)
    assert other.missing(["a"]) == ["a"]


def test_non_finite_text_is_named_and_not_stored(encoder):
    store = texts.TextStore(encoder.key(), encoder.embed_dim)
    vectors = np.ones((2, encoder.embed_dim), np.float32)
    vectors[1, 3] = np.inf
    store.add(["good", "bad"], vectors)
    assert store.get(["good"]).shape == (1, encoder.embed_dim)
    with pytest.raises(ModelError, match=r"text .bad..*not finite"):
        store.get(["good", "bad"])


def test_a_failed_append_leaves_the_segment_readable(encoder, monkeypatch):
    store = texts.TextStore(encoder.key(), encoder.embed_dim)
    vector = np.ones((1, encoder.embed_dim), np.float32)
    store.add(["a"], vector)

    class Full:
        def __init__(self, file):
            self._file = file

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self._file.close()

        def __getattr__(self, name):
            return getattr(self._file, name)

        def write(self, data):
            self._file.write(data[: len(data) // 2])
            self._file.flush()
            raise OSError(28, "No space left on device")

    opened = Path.open
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", lambda path, mode: Full(opened(path, mode)))
        with pytest.raises(StoreError, match="No space left"):
            store.add(["b"], vector)
    store.add(["c"], vector)
    again = texts.TextStore(encoder.key(), encoder.embed_dim)
    assert again.missing(["a", "b", "c"]) == ["b"]


def test_one_behind_keeps_order_and_stays_one_ahead():
    made = []

    def items():
        for i in range(4):
            made.append(i)
            yield i

    seen = [(item, len(made)) for item in one_behind(items())]
    assert seen == [(0, 2), (1, 3), (2, 4), (3, 4)]
    assert list(one_behind(iter([]))) == []

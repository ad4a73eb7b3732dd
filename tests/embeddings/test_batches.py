"""Batches of any size give the same rows; what does not fit is halved."""

from __future__ import annotations

import weakref
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import image_folder, tiny_checkpoint

import clipeval
from clipeval import config, datasets, models
from clipeval.embeddings import batches, images, texts
from clipeval.embeddings.batches import Batch
from clipeval.embeddings.pixels import LoaderSettings
from clipeval.errors import ModelError


class Small:
    """A device with room for ``room`` rows at once. Two numbers of each row are its embedding."""

    device = "cpu"
    info = SimpleNamespace(model="small")

    def __init__(self, room, error=None):
        self.room, self.asked = room, []
        self.error = error or torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    def encode(self, rows):
        self.asked.append(len(rows))
        if len(rows) > self.room:
            raise self.error
        return torch.as_tensor(rows, dtype=torch.float32)[:, None] * torch.tensor([1.0, -1.0])


def through(encoder, sizes, unit="images", each=1):
    rows = np.split(np.arange(sum(sizes)), np.cumsum(sizes)[:-1])
    return list(batches.encoded(encoder, unit, ((r, Batch(r, each)) for r in rows), encoder.encode))


def test_a_batch_that_does_not_fit_is_halved_and_so_are_later_ones(capsys):
    small = Small(room=3)
    found = through(small, [8, 8, 3, 1])
    assert small.asked == [8, 4, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1, 1]
    for rows, vectors in found:
        np.testing.assert_array_equal(vectors, np.stack([rows, -rows], 1))
    assert capsys.readouterr().err.splitlines() == [
        "small: 8 images at once do not fit into the memory of cpu: 4 from here on.",
        "small: 4 images at once do not fit into the memory of cpu: 2 from here on.",
    ]
    through(small, [7])
    assert small.asked[13:] == [2, 2, 2, 1], "known of this checkpoint already"
    assert through(Small(room=3), [3])[0][1].shape == (3, 2), "and of no other"


def test_what_is_refused_of_texts_is_counted_in_tokens(capsys):
    """10 texts of 6 tokens are 60; what then fits, 30 tokens, is 15 texts of 2."""
    small = Small(room=5)
    through(small, [10], "tokens", 6)
    small.room, small.asked = 99, []
    through(small, [40], "tokens", 2)
    assert small.asked == [15, 15, 10]
    through(small, [3], "tokens", 31)
    assert small.asked[3:] == [1, 1, 1]
    assert "60 tokens at once do not fit into the memory of cpu: 30 from here on" in capsys.readouterr().err


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory."), MemoryError()])
def test_one_row_without_room_is_an_error(error):
    small = Small(0, error)
    with pytest.raises(type(error)):
        through(small, [4])
    assert small.asked == [4, 2, 1]


def test_other_errors_are_not_tried_again():
    small = Small(0, ModelError("out of memory, says a name"))
    with pytest.raises(ModelError):
        through(small, [4])
    assert small.asked == [4]


def test_what_a_refused_attempt_held_is_free_before_the_next():
    """The traceback of the error would keep its tensors alive."""
    alive, seen = [], []

    class Held:
        pass

    def encode(rows):
        seen.append([held() for held in alive])
        activations = Held()
        alive.append(weakref.ref(activations))
        if len(rows) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return torch.zeros(len(rows), 2)

    list(batches.encoded(Small(0), "images", [("", Batch(np.arange(2)))], encode))
    assert seen == [[], [None], [None, None]]


def test_texts_of_a_batch_fill_its_tokens():
    """By trying all: each batch padded to its longest is within the budget, and one more text would not be."""
    rng = np.random.default_rng(3)
    lengths = rng.integers(1, 78, 501)
    found = list(texts.by_length(lengths, 7 * 77))
    order = np.concatenate([batch.rows for batch in found])
    assert sorted(order) == list(range(501))
    assert (np.diff(lengths[order]) >= 0).all()
    for number, batch in enumerate(found):
        assert batch.each == lengths[batch.rows].max()
        assert len(batch.rows) * batch.each <= 7 * 77
        if number + 1 < len(found):
            assert (len(batch.rows) + 1) * lengths[found[number + 1].rows[0]] > 7 * 77
    assert [len(batch.rows) for batch in texts.by_length(np.array([5, 9, 80]), 4)] == [1, 1, 1]
    assert list(texts.by_length(np.array([], int), 4)) == []


def test_embedding_on_a_device_with_little_room_gives_the_same(tmp_path, capsys, monkeypatch):
    [spec] = models.resolve([str(tiny_checkpoint(tmp_path / "tiny.pt"))], config.load())
    encoder = models.load(spec, device="cpu", precision="fp32", offline=True)
    image_folder(tmp_path / "colours")
    selection = datasets.resolve([f"folder:{tmp_path}/colours"], config.load())
    [(name, entry)] = selection.datasets.items()
    dataset = datasets.open_dataset(name, entry)
    everything = np.arange(len(dataset))
    expected = images.embed(encoder, dataset, everything, LoaderSettings(64), lambda *_: None)
    whole = encoder.encode_images

    def encode(pixels):
        if len(pixels) > 5:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 MiB.")
        return whole(pixels)

    monkeypatch.setattr(encoder, "encode_images", encode)
    settings = LoaderSettings(16, fresh="again")
    got = images.embed(encoder, dataset, everything, settings, lambda *_: None)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-6)
    stored, valid = images.embedding_file(encoder, dataset).read(everything)
    assert valid.all()
    np.testing.assert_array_equal(stored.view(np.float32), got)
    assert "tiny.pt: 16 images at once do not fit into the memory of cpu: 8 from here on." in capsys.readouterr().err


def test_automatic_sizes():
    assert batches.images_at_once(Small(1)) == 64
    sizes = [batches.power_of_two(fitting) for fitting in (0.3, 1, 2.9, 64, 127.9, 255, 256, 1e9)]
    assert sizes == [1, 1, 2, 64, 64, 128, 256, 256]


@pytest.mark.parametrize(
    ("free", "per_image", "expected"),
    [(80e9, 10e6, 256), (2.57e9, 10e6, 128), (2.55e9, 10e6, 64), (1e6, 10e6, 1), (80e9, 0, 256)],
)
def test_half_of_the_free_memory_of_a_gpu_is_filled(monkeypatch, free, per_image, expected):
    """The stand-in takes ``per_image`` bytes, and the first time 500 MB of its own. 30 MB are kept without use."""
    state = {"base": 1e9, "peak": 1e9, "first": 5e8}

    class OnGpu(Small):
        device = "cuda:1"

        def pixels(self, image):
            return np.zeros((4, 4, 3), np.uint8)

        def encode_images(self, rows):
            state["peak"] = max(state["peak"], state["base"] + state.pop("first", 0) + per_image * len(rows))

    def reset(device):
        state["peak"] = state["base"]

    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: state["base"])
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: state["base"] + 30e6)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: state["peak"])
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", reset)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free - 30e6, 80e9))
    assert batches.images_at_once(OnGpu(1)) == expected


def test_without_room_for_a_few_images_a_few_are_tried(monkeypatch):
    small = Small(0)
    small.device, small.pixels = "cuda", lambda image: np.zeros((4, 4, 3), np.uint8)
    small.encode_images = small.encode
    assert batches.images_at_once(small) == 8


@pytest.mark.parametrize(("asked", "largest"), [({}, 7), ({"batch_size": "auto"}, 7), ({"batch_size": 5}, 5)])
def test_a_run_takes_what_the_device_has_room_for_unless_told(tmp_path, monkeypatch, asked, largest):
    """Images in batches of 7, texts in batches of 7 x 77 tokens; a number that is given stands."""
    import open_clip

    from clipeval.models.text_tower import CausalTextTower

    seen = {"images": [], "texts": []}
    monkeypatch.setattr(batches, "images_at_once", lambda encoder: 7)

    def spy(owner, name, kind, size):
        function = getattr(owner, name)

        def spied(self, tensor, *given, **named):
            seen[kind] += [] if tensor.is_meta else [size(tensor)]
            return function(self, tensor, *given, **named)

        monkeypatch.setattr(owner, name, spied)

    spy(open_clip.CLIP, "encode_image", "images", len)
    spy(CausalTextTower, "encode", "texts", torch.Tensor.numel)
    tiny_checkpoint(tmp_path / "tiny.pt")
    image_folder(tmp_path / "colours")
    clipeval.run(
        str(tmp_path / "tiny.pt"),
        f"folder:{tmp_path}/colours",
        "classification",
        out=tmp_path / "out",
        workers=0,
        **asked,
    )
    assert max(seen["images"]) == largest
    assert 77 * largest / 2 < max(seen["texts"]) <= 77 * largest

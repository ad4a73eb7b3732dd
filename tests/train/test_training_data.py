"""Pixels and captions that training sees, against what the evaluation sees."""

import numpy as np
import open_clip
import pytest
import torch
from tiny_run import tiny_config

from clipeval.config import DatasetEntry
from clipeval.datasets import icons, open_dataset
from clipeval.errors import DataError, UsageError
from clipeval_train.config import SourceEntry
from clipeval_train.data import Corpus, crop, load_pairs
from clipeval_train.model import resolve


def test_digit_pixels_equal_the_transform_of_evaluation_and_captions_name_the_class():
    images, captions = load_pairs(SourceEntry(source="d", shards="builtin:digits"), 16)
    dataset = open_dataset("digits", DatasetEntry(spec="builtin:digits"), "train")
    transform = open_clip.image_transform(16, is_train=False, mean=(0, 0, 0), std=(1, 1, 1))
    for index in range(0, len(dataset), 401):
        expected = (transform(dataset.image(index)) * 255).round().to(torch.uint8).numpy()
        assert (images[index] == expected).all()
    assert dataset.prompts is not None
    assert all(dataset.prompts.classes[label] in text for label, text in zip(dataset.labels, captions, strict=True))
    assert len(set(captions)) == 10 * len(dataset.prompts.templates)


def test_held_out_icons_are_not_trained_on():
    images, captions = load_pairs(SourceEntry(source="i", shards="builtin:icons/elusive"), 24)
    assert images.shape == (len(captions), 3, 24, 24)
    names = {glyph.caption: glyph.name for glyph in icons.load_glyphs(("elusive",))}
    assert 0 < len(captions) < len(names)
    assert not any(icons.is_held_out(names[caption]) for caption in captions)


@pytest.mark.parametrize(
    ("shards", "error", "message"),
    [
        ("d/{000..007}.tar", UsageError, "s: 'd/.*tar': only builtin: sources are supported by this version"),
        ("builtin:digit", UsageError, "builtin:digit: there is no such data set. Did you mean 'digits'"),
        ("builtin:icons/materiel", UsageError, "Did you mean 'material'"),
    ],
)
def test_sources_that_cannot_be_read(shards, error, message):
    with pytest.raises(error, match=message):
        load_pairs(SourceEntry(source="s", shards=shards), 16)


def corpus(tmp_path, **changes):
    config = tiny_config(tmp_path, **changes)
    return Corpus(config, resolve(config.model, "tiny"))


def test_a_batch_is_the_same_however_the_stream_is_cut(tmp_path):
    data, device = corpus(tmp_path), torch.device("cpu")
    images, tokens = data.batch(70, 102, device)
    first, second = data.batch(70, 83, device), data.batch(83, 102, device)
    assert torch.equal(images, torch.cat([first[0], second[0]]))
    assert torch.equal(tokens, torch.cat([first[1], second[1]]))
    assert not torch.equal(images, corpus(tmp_path, seed=1).batch(70, 102, device)[0])


def test_the_largest_crop_is_the_whole_image():
    images = torch.rand(3, 3, 9, 9, generator=torch.Generator().manual_seed(0))
    draws = torch.tensor([[1.0, 0.0, 0.9], [1.0, 0.5, 0.5], [1.0, 0.3, 0.1]])
    torch.testing.assert_close(crop(images, draws), images, rtol=0, atol=1e-5)


def test_a_crop_reads_the_place_it_was_told_to():
    """On an image whose value is its x coordinate, bilinear sampling gives the sampled coordinate itself."""
    size = 11
    centres = (torch.arange(size) + 0.5) / size * 2 - 1
    ramp = torch.stack([centres.expand(size, size), centres[:, None].expand(size, size)])[None]
    side = 0.9**0.5
    out = crop(ramp, torch.tensor([[0.0, 0.75, 0.25]]))[0]
    inside = slice(2, -2)  # the outermost samples may fall between the last pixel's centre and the border
    expected_x = side * centres + (1 - side) * 0.5
    expected_y = side * centres - (1 - side) * 0.5
    np.testing.assert_allclose(out[0, 5, inside], expected_x[inside], atol=1e-6)
    np.testing.assert_allclose(out[1, inside, 5], expected_y[inside], atol=1e-6)


def test_the_fingerprint_follows_content(tmp_path):
    same = [{"source": "renamed", "shards": "builtin:digits", "weight": 3}]
    other = [{"source": "digits", "shards": "builtin:icons/codicon"}]
    assert corpus(tmp_path).fingerprint == corpus(tmp_path, data=same, seed=4).fingerprint
    assert corpus(tmp_path).fingerprint != corpus(tmp_path, data=other, batch_size=8).fingerprint


def test_a_missing_icon_package_is_a_data_error(monkeypatch):
    monkeypatch.setattr(icons.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match="QtAwesome"):
        load_pairs(SourceEntry(source="i", shards="builtin:icons/elusive"), 24)

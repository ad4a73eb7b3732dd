"""Pixels and captions against Pillow, torchvision's crop and what evaluation decodes."""

import io
import json

import numpy as np
import pytest
import torch
from PIL import Image
from shard_files import bomb, pixels, truncated_jpeg
from torchvision.transforms import InterpolationMode, RandomResizedCrop
from torchvision.transforms.v2.functional import resized_crop as reference_crop

from clipeval.datasets import images
from clipeval_train.input.bad import BadSample
from clipeval_train.input.crops import crop_box, crop_on_device, resized_crop, uniform
from clipeval_train.input.decode import decode_captions, decode_image


def saved(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def rgb(height=53, width=71):
    return Image.fromarray(pixels(1, height, width))


KINDS = {
    "JPEG": lambda: saved(rgb(), "JPEG", quality=90),
    "progressive JPEG": lambda: saved(rgb(), "JPEG", progressive=True, subsampling=0),
    "grey JPEG": lambda: saved(rgb().convert("L"), "JPEG"),
    "CMYK JPEG": lambda: saved(rgb().convert("CMYK"), "JPEG"),
    "JPEG with EXIF rotation": lambda: saved(rgb(), "JPEG", exif=rotated()),
    "PNG": lambda: saved(rgb(), "PNG"),
    "palette PNG": lambda: saved(rgb().convert("P"), "PNG", transparency=3),
    "RGBA PNG": lambda: saved(rgb().convert("RGBA"), "PNG"),
    "16-bit PNG": lambda: saved(Image.fromarray(np.arange(1200, dtype=np.uint16).reshape(30, 40) * 50), "PNG"),
    "1-bit PNG": lambda: saved(rgb().convert("1"), "PNG"),
    "WebP": lambda: saved(rgb(), "WEBP", lossless=True),
}


def rotated():
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


@pytest.mark.parametrize("kind", KINDS)
def test_pixels_equal_those_of_evaluation(kind):
    data = KINDS[kind]()
    expected = np.asarray(images.decode(data, "sample"))
    assert np.array_equal(decode_image(data).permute(1, 2, 0).numpy(), expected)


def test_photographs_of_many_sizes_decode_equally():
    for seed in range(12):
        height, width = np.random.default_rng(seed).integers(1, 300, 2).tolist()
        data = saved(Image.fromarray(pixels(seed, height, width)), "JPEG", quality=50 + 4 * seed, subsampling=seed % 3)
        expected = np.asarray(images.decode(data, "sample"))
        assert np.array_equal(decode_image(data).permute(1, 2, 0).numpy(), expected)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "undecodable image"),
        (b"GIF89a and nothing else", "undecodable image"),
        (truncated_jpeg(), "undecodable image"),
        (KINDS["PNG"]()[:-200], "undecodable image"),
        (bomb(), "image too large"),
    ],
)
def test_what_cannot_be_decoded_has_a_reason(data, reason):
    with pytest.raises(BadSample, match=f"^{reason}$"):
        decode_image(data)


def test_an_image_just_over_the_limit_is_refused_before_it_is_decoded(monkeypatch):
    monkeypatch.setattr("clipeval.datasets.images.PIXEL_LIMIT", 53 * 71 - 1)
    with pytest.raises(BadSample, match="image too large"):
        decode_image(KINDS["JPEG"]())


@pytest.mark.parametrize(
    ("data", "is_json", "expected"),
    [
        ("ein Bär\nzwei".encode(), False, ["ein Bär\nzwei"]),
        (json.dumps({"caption": "x", "url": "u"}).encode(), True, ["x"]),
        (json.dumps({"caption": ["x", "", None, "y"]}).encode(), True, ["x", "y"]),
    ],
)
def test_captions(data, is_json, expected):
    assert decode_captions(data, "caption" if is_json else "") == expected


@pytest.mark.parametrize(
    ("data", "is_json", "reason"),
    [
        (b" \n", False, "empty caption"),
        (b"caf\xe9", False, "caption is not UTF-8"),
        (b"{", True, "no caption in the JSON"),
        (b"[1]", True, "no caption in the JSON"),
        (b'{"text": "x"}', True, "no caption in the JSON"),
        (b'{"caption": null}', True, "empty caption"),
        (b'{"caption": []}', True, "empty caption"),
    ],
)
def test_captions_that_cannot_be_used(data, is_json, reason):
    with pytest.raises(BadSample, match=f"^{reason}$"):
        decode_captions(data, "caption" if is_json else "")


@pytest.mark.parametrize(("height", "width", "size"), [(256, 256, 224), (300, 199, 224), (97, 64, 32), (40, 50, 64)])
def test_a_resized_crop_is_pillows_to_two_grey_levels(height, width, size):
    original = pixels(7, height, width)
    for draw in uniform(3, 0, 4):
        box = top, left, h, w = crop_box(height, width, draw)
        ours = resized_crop(torch.from_numpy(original).permute(2, 0, 1), box, size)
        pillow = Image.fromarray(original[top : top + h, left : left + w])
        expected = np.asarray(pillow.resize((size, size), Image.Resampling.BICUBIC)).astype(int)
        difference = np.abs(ours.permute(1, 2, 0).numpy() - expected)
        assert difference.max() <= 2
        assert difference.mean() < 0.1
        reference = reference_crop(
            torch.from_numpy(original).permute(2, 0, 1).float(), *box, [size, size], InterpolationMode.BICUBIC
        )
        assert (ours - reference.round().clamp(0, 255)).abs().max() <= 1


@pytest.mark.parametrize(("height", "width"), [(256, 256), (240, 256), (200, 256), (300, 199), (64, 300), (1, 1)])
def test_crops_are_distributed_as_torchvisions(height, width):
    """Means and deciles of area, ratio and place over 4,000 draws each."""
    torch.manual_seed(0)
    blank = torch.zeros(1, height, width)
    theirs = np.array(
        [RandomResizedCrop.get_params(blank, [0.9, 1.0], [3 / 4, 4 / 3]) for _ in range(4000)], dtype=float
    )
    ours = np.array([crop_box(height, width, draw) for draw in uniform(11, 0, 4000)], dtype=float)
    for box in ours:
        assert (box[2:] > 0).all()
        assert box[0] + box[2] <= height
        assert box[1] + box[3] <= width
    deciles = np.linspace(0.1, 0.9, 9)
    tolerance = 0.02 * max(height, width) + 1
    np.testing.assert_allclose(np.quantile(ours, deciles, axis=0), np.quantile(theirs, deciles, axis=0), atol=tolerance)
    np.testing.assert_allclose(ours.mean(0), theirs.mean(0), atol=0.005 * max(height, width) + 0.1)


def test_random_numbers_depend_on_seed_and_position_alone():
    whole = uniform(5, 1000, 1100)
    assert np.array_equal(np.concatenate([uniform(5, 1000, 1037), uniform(5, 1037, 1100)]), whole)
    assert not np.array_equal(uniform(6, 1000, 1100), whole)
    assert len(np.unique(whole[:, 0, 0])) == 100
    assert whole.min() >= 0
    assert whole.max() < 1
    assert abs(uniform(0, 0, 2000).mean() - 0.5) < 0.005


def test_the_largest_crop_on_the_device_is_the_whole_image():
    small = torch.rand(3, 3, 9, 9, generator=torch.Generator().manual_seed(0))
    draws = torch.tensor([[1.0, 0.0, 0.9], [1.0, 0.5, 0.5], [1.0, 0.3, 0.1]])
    torch.testing.assert_close(crop_on_device(small, draws), small, rtol=0, atol=1e-5)


def test_a_crop_on_the_device_reads_the_place_it_was_told_to():
    """On an image whose value is its x coordinate, bilinear sampling gives the sampled coordinate itself."""
    size = 11
    centres = (torch.arange(size) + 0.5) / size * 2 - 1
    ramp = torch.stack([centres.expand(size, size), centres[:, None].expand(size, size)])[None]
    side = 0.9**0.5
    out = crop_on_device(ramp, torch.tensor([[0.0, 0.75, 0.25]]))[0]
    inside = slice(2, -2)  # the outermost samples may fall between the last pixel's centre and the border
    np.testing.assert_allclose(out[0, 5, inside], (side * centres + (1 - side) * 0.5)[inside], atol=1e-6)
    np.testing.assert_allclose(out[1, inside, 5], (side * centres - (1 - side) * 0.5)[inside], atol=1e-6)

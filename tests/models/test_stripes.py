"""Long, thin images against the transform of open_clip, which resizes them whole."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from torchvision.transforms import Normalize, ToTensor

from clipeval.models import stripes

SIZES = [(1, 60), (60, 1), (3, 700), (700, 3), (7, 1001), (37, 900), (900, 37), (230, 3001), (3001, 251), (500, 333)]


def steps(size, **settings):
    found = image_transform_v2(PreprocessCfg(size=size, **settings), is_train=False).transforms
    return [step for step in found if not isinstance(step, ToTensor | Normalize)]


def noise(width, height):
    return Image.fromarray(np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8))


def whole(image, transform):
    for step in transform:
        image = step(image)
    return np.asarray(image).astype(int)


@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("size", [(224, 224), (33, 33), (24, 40)])
def test_ordinary_images_are_transformed_as_open_clip_does(size, mode):
    transform = steps(size, resize_mode=mode)
    for width, height in [*SIZES[2:], (41, 37), (1, 1)]:
        if mode == "longest" and max(width, height) > 66 * min(width, height):
            continue  # the other side vanishes: open_clip raises
        image = noise(width, height)
        assert np.array_equal(np.asarray(stripes.transformed(image, transform)), whole(image, transform))


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("size", [(224, 224), (32, 32), (24, 40), (40, 24)])
def test_the_part_that_is_kept_has_the_pixels_of_the_whole(monkeypatch, size, interpolation):
    """Equal but for one grey level of one in a hundred values: sums in another order round differently. A crop that
    were off by a pixel of the image, or a filter cut off at its edge, would change most values of noise by dozens."""
    monkeypatch.setattr(stripes, "_MOST_PIXELS", 0)
    transform = steps(size, interpolation=interpolation)
    for width, height in SIZES:
        image = noise(width, height)
        difference = np.abs(np.asarray(stripes.transformed(image, transform)) - whole(image, transform))
        assert difference.max() <= 1
        assert (difference > 0).mean() < 0.01


def test_the_side_that_would_vanish_keeps_a_pixel():
    """open_clip raises: a pixel in 60,000 is none in 224."""
    transform = steps((224, 224), resize_mode="longest", fill_color=9)
    pixels = np.asarray(stripes.transformed(Image.new("RGB", (1, 60_000), (10, 20, 30)), transform))
    assert pixels.shape == (224, 224, 3)
    assert (pixels == (10, 20, 30)).all(2).sum(1).tolist() == [1] * 224


@pytest.mark.parametrize("size", ["(1, 60_000)", "(60_000, 1)", "(2, 1_000_000)"])
def test_a_stripe_takes_no_memory_to_speak_of(size):
    """Resized whole, 1 x 60,000 pixels take 13 GB."""
    program = f"""
import resource, sys
sys.path.insert(0, {str(__file__).rpartition("/")[0]!r})
from test_stripes import Image, steps, stripes
transform = steps(224)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
image = stripes.transformed(Image.new("RGB", {size}, (10, 20, 30)), transform)
assert image.size == (224, 224) and image.getextrema() == ((10, 10), (20, 20), (30, 30))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(found.stdout) < 100_000  # kB

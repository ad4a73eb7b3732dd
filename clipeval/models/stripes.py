"""Long, thin images: resized whole, of which a square is kept, they would take gigabytes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from open_clip.transform import ResizeKeepRatio
from PIL import Image, ImageOps
from torchvision.transforms import CenterCrop, Resize
from torchvision.transforms.functional import pil_modes_mapping

_MOST_PIXELS = 1 << 25
"""What is resized to more than these is a stripe: of no side less than the 100th of the other, for models of today."""
_MOST_KEPT = 64
"""Of what is cut off a stripe: as many squares stay."""
_SUPPORT = 4
"""Pixels on each side that any filter reads, in units of the larger of the two scales: Lanczos reads three."""


def transformed(image: Image.Image, steps: Sequence[Callable[[Image.Image], Image.Image]]) -> Image.Image:
    """``steps`` of an inference transform applied to ``image``. Of a stripe the first two, a resize and a crop of the
    centre, are one: only the part that is kept is resized, by the same filter at the same places."""
    if len(steps) > 1 and isinstance(steps[0], Resize | ResizeKeepRatio):
        width, height = size = _resized(image, steps[0])
        if isinstance(steps[1], CenterCrop) and width * height > _MOST_PIXELS:
            image, steps = _centre(image, size, steps[1], pil_modes_mapping[steps[0].interpolation]), steps[2:]
        elif 0 in size:  # the side that is not the longest one would vanish
            image, steps = image.resize((max(width, 1), max(height, 1))), steps[1:]
    for step in steps:
        image = step(image)
    return image


def shortened(image: Image.Image, side: int) -> Image.Image:
    """The middle of a stripe, where it would be resized until its shorter side has ``side`` pixels, of which a square
    in the centre is kept; other images as they are."""
    short, long = sorted(image.size)
    if side * side * long / short <= _MOST_PIXELS:
        return image
    away = (long - short * _MOST_KEPT) // 2
    return ImageOps.crop(image, (away, 0, away, 0) if image.width > image.height else (0, away, 0, away))


def _resized(image: Image.Image, resize: Any) -> tuple[int, int]:
    """The size after ``resize``, as its own code computes it."""
    width, height = image.size
    if isinstance(resize, ResizeKeepRatio):
        height, width = resize.get_params(image, resize.size, resize.longest)
        return width, height
    if not isinstance(resize.size, int):
        return resize.size[1], resize.size[0]
    short, long = sorted(image.size)
    new = int(resize.size * long / short)
    return (resize.size, new) if width <= height else (new, resize.size)


def _centre(image: Image.Image, size: tuple[int, int], crop: CenterCrop, interpolation: int) -> Image.Image:
    """The centre of ``image`` resized to ``size``, which is no smaller than the crop.

    The two passes of the filter are in the order in which Pillow makes them, each rounded to 8 bits: the vertical one
    first where an upright image becomes smaller.
    """
    width, height = int(crop.size[1]), int(crop.size[0])
    left, right, *across = _kept(image.width, size[0], width)
    upper, lower, *down = _kept(image.height, size[1], height)
    part = image.crop((left, upper, right, lower))
    if image.height > image.width and size[1] < image.height:
        part = part.resize((part.width, height), interpolation, (0, down[0], part.width, down[1]))
        return part.resize((width, height), interpolation, (across[0], 0, across[1], height))
    part = part.resize((width, part.height), interpolation, (across[0], 0, across[1], part.height))
    return part.resize((width, height), interpolation, (0, down[0], width, down[1]))


def _kept(length: int, resized: int, kept: int) -> tuple[int, int, float, float]:
    """Along one side: from where to where the image is needed, and the place in there of what is kept.

    Pillow takes places as numbers of 24 bits: from the image's own edge they would be off by parts of a pixel."""
    first, scale = round((resized - kept) / 2.0), length / resized
    start, stop = first * scale, (first + kept) * scale
    margin = _SUPPORT * math.ceil(max(scale, 1))
    before, after = max(0, math.floor(start) - margin), min(length, math.ceil(stop) + margin)
    return before, after, start - before, stop - before

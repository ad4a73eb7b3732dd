"""Random resized crops whose parameters depend on the seed and the stream position alone."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F

SMALLEST_CROP = 0.9
"""Area of the smallest random crop as a share of the image's: open_clip's default for pre-training."""
_LOG_RATIO = math.log(4 / 3)
"""Crops are at most this much wider than high, or higher than wide."""
_ATTEMPTS = 10
CAPTION_ROW = 10
"""The row of the random numbers that chooses a caption."""
_STEPS = 16
"""Steps of the generator per position; each gives four numbers."""


def uniform(seed: int, start: int, stop: int) -> np.ndarray:
    """``[stop - start, 16, 4]`` float32 in [0, 1): the random numbers of these positions, by a counter-based generator.

    Rows 0 to 9 are for crops, ``CAPTION_ROW`` for the caption.
    """
    generator = np.random.Philox(key=seed, counter=start * _STEPS)
    words = generator.random_raw(4 * _STEPS * (stop - start)).reshape(-1, _STEPS, 4)
    return (words >> np.uint64(40)).astype(np.float32) * np.float32(2**-24)


def crop_box(height: int, width: int, draws: np.ndarray) -> tuple[int, int, int, int]:
    """Top, left, height and width of a random crop; ``draws`` is ``[16, 4]`` in [0, 1).

    The distribution of torchvision's RandomResizedCrop with scale (0.9, 1) and ratio (3/4, 4/3), as open_clip trains
    with: ten attempts, then the largest central crop of an allowed ratio.
    """
    for area_draw, ratio_draw, top, left in draws[:_ATTEMPTS].tolist():
        area = height * width * (SMALLEST_CROP + (1 - SMALLEST_CROP) * area_draw)
        ratio = math.exp(_LOG_RATIO * (2 * ratio_draw - 1))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return int(top * (height - h + 1)), int(left * (width - w + 1)), h, w
    w, h = min(width, round(height * 4 / 3)), min(height, round(width * 4 / 3))
    return (height - h) // 2, (width - w) // 2, h, w


def resized_crop(image: torch.Tensor, box: tuple[int, int, int, int], size: int) -> torch.Tensor:
    """``[3, size, size]`` uint8 from ``[3, height, width]`` uint8 and ``crop_box``.

    Bicubic with antialiasing on bytes, channels last: several times faster than Pillow's and within one grey level.
    """
    top, left, height, width = box
    region = image[None, :, top : top + height, left : left + width].contiguous(memory_format=torch.channels_last)
    return F.interpolate(region, size=(size, size), mode="bicubic", antialias=True)[0]


def crop_on_device(images: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
    """A square crop of each image, resized to the image's size (bilinear): ``[n, c, h, w]`` float in and out.

    ``draws`` ``[n, 3]`` in [0, 1) choose its area, from 0.9 to 1 of the image's, and its place in x and y. One
    vectorised call for all, for small images that are in memory.
    """
    side = (SMALLEST_CROP + (1 - SMALLEST_CROP) * draws[:, 0]).sqrt()
    theta = torch.zeros(len(images), 2, 3, device=images.device)
    theta[:, 0, 0] = theta[:, 1, 1] = side
    theta[:, :, 2] = (1 - side[:, None]) * (2 * draws[:, 1:] - 1)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)

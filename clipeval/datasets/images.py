"""The one place where image files are decoded, so that every broken image is an error that names its sample."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

from clipeval.errors import DataError, MeasureError

PIXEL_LIMIT = 89_478_485
"""Larger images are refused: a small file can decode to many gigabytes. Pillow warns from this size on."""


def decode(source: bytes | Path, sample: str) -> Image.Image:
    """Decode a whole image and convert it to RGB before any resizing.

    That is what webdataset's ``pil`` decoder and torchvision's ``pil_loader`` do, and so CLIP_benchmark: transparency
    is dropped, palettes are resolved, CMYK and 16-bit images are converted by Pillow, EXIF rotation is ignored.
    ``sample`` is how messages call the image. Raises DataError when it is missing, corrupt, truncated or too large.
    """
    with naming(sample):
        opened = Image.open(io.BytesIO(source) if isinstance(source, bytes) else source)
        with opened:
            check_size(opened, sample)
            return opened.convert("RGB")


def check_size(image: Image.Image, sample: str) -> None:
    """Raise DataError when an image has more than ``PIXEL_LIMIT`` pixels. Looks at its header only."""
    width, height = image.size
    if width * height > PIXEL_LIMIT:
        raise DataError(f"{sample}: {width} x {height} pixels are more than the limit of {PIXEL_LIMIT:,}.")


@contextmanager
def naming(sample: str) -> Iterator[None]:
    """Turn whatever fails inside into a DataError that names the sample.

    Image decoders raise errors of many kinds on damaged data (OSError, SyntaxError, struct.error, OverflowError...).
    """
    try:
        yield
    except MeasureError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"{sample}: the image file {error.filename} is missing.") from error
    except Exception as error:
        reason = str(error).rstrip(".") or type(error).__name__
        raise DataError(f"{sample}: cannot decode the image: {reason}. The file is damaged or not an image.") from error

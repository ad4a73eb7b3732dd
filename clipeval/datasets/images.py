"""The one place where image files are decoded, so that every broken image is an error that names its sample."""

from __future__ import annotations

import hashlib
import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from clipeval.errors import DataError, MeasureError
from clipeval.regular import read_regular

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "PPM", "TIFF")
"""What is decoded, whatever a file's name says. Pillow knows others, some of which start programs."""
BYTE_LIMIT = 1 << 29
"""Larger files are not read: no image within the limit of pixels needs so much."""
PIXEL_LIMIT = 89_478_485
"""Larger images are refused: a small file can decode to many gigabytes. Pillow warns from this size on."""
_SCANS = 16
"""A progressive JPEG of ``PIXEL_LIMIT`` may have so many passes over its pixels, a smaller one more in proportion: each
takes some hundred bytes, and as long as a decoding. Encoders make about ten."""
_ASPECT_LIMIT = 1000
"""A longer stripe would take gigabytes once its short side is resized to that of a model."""

_JPEG_MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])", re.DOTALL)


class TooLarge(ValueError):
    """An image would take too much memory or time; the message says why."""


def decode(source: bytes | Path, sample: str, sha256: str | None = None) -> Image.Image:
    """Decode a whole image and convert it to RGB before any resizing.

    That is what webdataset's ``pil`` decoder and torchvision's ``pil_loader`` do, and so CLIP_benchmark: transparency
    is dropped, palettes are resolved, CMYK and 16-bit images are converted by Pillow, EXIF rotation is ignored.
    ``sample`` is how messages call the image.

    Raises DataError when it is missing, no regular file, truncated, undecodable or too large, and when its bytes are
    not those of the digest ``sha256``. Other damage is noticed where the format has checksums, as PNG has; of a JPEG's
    damaged bytes decoders make other pixels without a word.
    """
    with naming(sample):
        data = source if isinstance(source, bytes) else read_regular(source, BYTE_LIMIT)
        if sha256 is not None:
            require_unchanged(hashlib.sha256(data).hexdigest(), sha256, sample)
        with opened(data) as image:
            return image.convert("RGB")


def require_unchanged(found: str, sha256: str, sample: str) -> None:
    """Raise DataError when an image that is read is not the one that was there when the data set was opened."""
    if found != sha256:
        raise DataError(
            f"{sample}: the image changed during the run. Wait until the data set is complete, and run it again."
        )


@contextmanager
def opened(data: bytes) -> Iterator[Image.Image]:
    """An image of which only the header was read. Raises TooLarge, and whatever Pillow raises for what is no image."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about sizes, which are checked here, and odd metadata
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _check(image, data)
            yield image


def _check(image: Image.Image, data: bytes) -> None:
    width, height = image.size
    size = f"{width} x {height} pixels"
    if width * height > PIXEL_LIMIT:
        raise TooLarge(f"{size} are more than the limit of {PIXEL_LIMIT:,}")
    if max(width, height) > _ASPECT_LIMIT * min(width, height):
        raise TooLarge(f"{size}: one side is more than {_ASPECT_LIMIT:,} times the other")
    most = _SCANS * PIXEL_LIMIT // max(1, width * height)
    if image.format in ("JPEG", "MPO") and data.count(b"\xff\xda") > most and (scans := _scans(data)) > most:
        raise TooLarge(f"a JPEG of {scans:,} scans of {size}; the limit for this size is {most:,}")


def _scans(data: bytes) -> int:
    """How often a JPEG file goes over its pixels."""
    at, scans = 2, 0
    while (marker := _JPEG_MARKER.search(data, at)) and marker[1] != b"\xd9":
        scans += marker[1] == b"\xda"
        at = marker.end() + int.from_bytes(data[marker.end() : marker.end() + 2], "big")
    return scans


@contextmanager
def naming(sample: str) -> Iterator[None]:
    """Turn whatever fails inside into a DataError that names the sample.

    Image decoders raise errors of many kinds on damaged data (OSError, SyntaxError, struct.error, OverflowError...).
    """
    try:
        yield
    except MeasureError:
        raise
    except TooLarge as error:
        raise DataError(f"{sample}: {error}.") from error
    except FileNotFoundError as error:
        raise DataError(f"{sample}: the image file {error.filename} is missing.") from error
    except Exception as error:
        reason = str(error).rstrip(".") or type(error).__name__
        if isinstance(error, UnidentifiedImageError):
            reason = f"cannot identify it as {', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
        elif isinstance(error, OSError) and error.filename:
            reason = f"{error.strerror} ({error.filename})"
        raise DataError(f"{sample}: cannot decode the image: {reason}. The file is damaged or not an image.") from error

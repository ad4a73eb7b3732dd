"""The one place where image files are decoded, so that every broken image is an error that names its sample."""

from __future__ import annotations

import hashlib
import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError, features

from clipeval.datasets import png
from clipeval.errors import DataError, MeasureError
from clipeval.regular import read_regular

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "PPM", "TIFF", *(("AVIF",) if "avif" in features.modules else ()))
"""What is decoded, whatever a file's name says. Pillow knows others, some of which start programs."""
_JPEG_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif")
_NETPBM_SUFFIXES = (".ppm", ".pgm", ".pbm", ".pnm")
SUFFIXES = frozenset(
    (*_JPEG_SUFFIXES, *_NETPBM_SUFFIXES, ".png", ".apng", ".webp", ".bmp", ".dib", ".gif", ".tif", ".tiff", ".avif")
)
"""Of the files that hold images of these formats."""
BYTE_LIMIT = 1 << 29
"""Larger files are not read: no image within the limit of pixels needs so much."""
PIXEL_LIMIT = 89_478_485
"""Larger images are refused: a small file can decode to many gigabytes. Pillow warns from this size on."""
_SCANS = 16
"""A progressive JPEG of ``PIXEL_LIMIT`` may have so many passes over its pixels, a smaller one more in proportion: each
takes some hundred bytes, and as long as a decoding. Encoders make about ten."""
_SIDE_LIMIT = 1 << 20
"""Pillow keeps some bytes for every line, however short it is."""

_JPEG_MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])", re.DOTALL)


_BITS_PER_SAMPLE, _SAMPLE_FORMAT = 258, 339
"""Tags of a TIFF file; the second one is 1 for whole numbers without a sign."""


class TooLarge(ValueError):
    """An image would take too much memory or time; the message says why."""


class Unscaled(ValueError):
    """An image of numbers that cannot be turned into levels from black to white; the message says why."""


def decode(source: bytes | Path, sample: str, sha256: str | None = None) -> Image.Image:
    """Decode a whole image and convert it to RGB before any resizing.

    That is what webdataset's ``pil`` decoder and torchvision's ``pil_loader`` do, and so CLIP_benchmark: transparency
    is dropped, palettes are resolved, CMYK is converted by Pillow, EXIF rotation is ignored. Images of more than 8 bits
    become such of 8 (``rgb``). ``sample`` is how messages call the image.

    Raises DataError when it is missing, no regular file, truncated, undecodable or too large, and when its bytes are
    not those of the digest ``sha256``. Other damage is noticed where the format has checksums, as PNG has; of a JPEG's
    damaged bytes decoders make other pixels without a word.
    """
    with naming(sample):
        data = source if isinstance(source, bytes) else read_regular(source, BYTE_LIMIT)
        if sha256 is not None:
            require_unchanged(hashlib.sha256(data).hexdigest(), sha256, sample)
        with opened(data) as image:
            return rgb(image)


def rgb(image: Image.Image) -> Image.Image:
    """``image`` as 8-bit RGB. Raises ``Unscaled``."""
    return eight_bit(image).convert("RGB")


def eight_bit(image: Image.Image) -> Image.Image:
    """``image``, or the high 8 bits of one whose grey levels have more, as Pillow takes them of colours; by itself it
    would make all levels above 255 white. Raises Unscaled where nobody knows which level is white."""
    if not image.mode.startswith(("I", "F")):
        return image
    bits = _depth(image)
    if bits is None:
        raise Unscaled("its grey levels are 32-bit or signed numbers without a known white; write it with 8 or 16 bits")
    levels = np.asarray(image).astype(np.int64) >> (bits - 8)
    return Image.fromarray(levels.clip(0, 255).astype(np.uint8))


def _depth(image: Image.Image) -> int | None:
    """Bits of the grey levels of an image of more than 8; None where they have no known white."""
    if image.format == "TIFF":
        tags = image.tag_v2  # type: ignore[attr-defined]
        bits, kind = tags.get(_BITS_PER_SAMPLE, (1,))[0], tags.get(_SAMPLE_FORMAT, (1,))[0]
        return int(bits) if kind == 1 and 8 <= bits <= 16 else None
    return 16 if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")) else None


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
        with Image.open(io.BytesIO(png.without_metadata(data)), formats=FORMATS) as image:
            _check(image, data)
            yield image


def check_size(image: Image.Image) -> None:
    """Raises TooLarge for an image of too many pixels."""
    width, height = image.size
    size = f"{width} x {height} pixels"
    if width * height > PIXEL_LIMIT:
        raise TooLarge(f"{size} are more than the limit of {PIXEL_LIMIT:,}")
    if max(width, height) > _SIDE_LIMIT:
        raise TooLarge(f"{size}: one side is more than the limit of {_SIDE_LIMIT:,}")


def _check(image: Image.Image, data: bytes) -> None:
    check_size(image)
    width, height = image.size
    most = _SCANS * PIXEL_LIMIT // max(1, width * height)
    if image.format in ("JPEG", "MPO") and data.count(b"\xff\xda") > most and (scans := _scans(data)) > most:
        raise TooLarge(f"a JPEG of {scans:,} scans of {width} x {height} pixels; the limit for this size is {most:,}")


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
    except (MeasureError, MemoryError):
        raise
    except (TooLarge, Unscaled) as error:
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

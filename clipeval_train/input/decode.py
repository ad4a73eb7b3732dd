"""From the bytes of a training sample to pixels and text. What cannot be used is a BadSample with its reason."""

from __future__ import annotations

import json
from collections.abc import Iterable

import numpy as np
import torch
from PIL import Image
from torchvision.io import ImageReadMode, decode_jpeg

from clipeval.datasets.images import TooLarge, opened, rgb
from clipeval_train.input.bad import BadSample
from clipeval_train.input.selection import captions_of, field_of

_ABSENT = object()


def decode_image(data: bytes) -> torch.Tensor:
    """``[3, height, width]`` uint8 RGB (strides as the decoder leaves them); the pixels of ``datasets.images.decode``.

    torchvision decodes plain JPEG files, twice as fast as Pillow and to equal pixels; Pillow does the rest. Raises
    BadSample for what is damaged, truncated, too large or no image.
    """
    try:
        with opened(data) as image:
            if image.format == "JPEG" and image.mode in ("RGB", "L"):
                encoded = torch.frombuffer(bytearray(data), dtype=torch.uint8)
                return decode_jpeg(encoded, mode=ImageReadMode.RGB)
            return torch.from_numpy(np.array(rgb(image))).permute(2, 0, 1)
    except (TooLarge, Image.DecompressionBombError):
        raise BadSample("image too large") from None
    except MemoryError:
        raise
    except Exception:  # decoders raise errors of many kinds on damaged data
        raise BadSample("undecodable image") from None


def decode_captions(data: bytes, field: str = "") -> list[str]:
    """The captions of a sample: the whole of a text file, or this field of a JSON file, a text or a list.

    Raises BadSample when there is none.
    """
    text = decode_text(data)
    if not field:
        return usable_captions([text])
    try:
        found = field_of(json.loads(text), field, _ABSENT)
    except (ValueError, RecursionError):
        found = _ABSENT
    if found is _ABSENT:
        raise BadSample("no caption in the JSON")
    return usable_captions(found if isinstance(found, list) else [found])


def decode_text(data: bytes) -> str:
    """UTF-8, without a byte order mark. Raises BadSample for other bytes."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise BadSample("caption is not UTF-8") from None


def usable_captions(captions: Iterable[object]) -> list[str]:
    """The captions that are texts and not blank. Raises BadSample when there is none."""
    usable = captions_of([*captions])
    if not usable:
        raise BadSample("empty caption")
    return usable

"""What identifies each image of a data set, and what of it will not be in its pixels: found from its bytes, undecoded,
when a data set is opened, so that it is known too when the pixels come from the cache."""

from __future__ import annotations

import hashlib
import os
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import NamedTuple

from clipeval import digest
from clipeval.datasets import png
from clipeval.datasets.base import Dataset
from clipeval.datasets.images import BYTE_LIMIT, opened
from clipeval.datasets.listing import Listing
from clipeval.errors import few
from clipeval.paths import readable
from clipeval.regular import read_regular

_FORMAT = 1
_THREADS, _AT_A_TIME = 4, 64
"""Threads that read files, and how many files are a piece of work."""
_LARGE = 1 << 24
_one_large = threading.Lock()
_JPEG = b"\xff\xd8"
_ALPHA, _DEEP = "a", "d"


class Content(NamedTuple):
    """An image file: the hex SHA-256 of its bytes; ``lost`` holds ``a`` where it has an alpha channel or a transparent
    colour, ``d`` where it has more than 8 bits per channel."""

    sha256: str
    lost: str = ""

    @property
    def pixels(self) -> str:
        """A digest for fingerprints: of the bytes, and of how more than 8 bits are made 8."""
        return f"{self.sha256}>>8" if _DEEP in self.lost else self.sha256


def of_bytes(data: bytes) -> Content:
    """The content of an image file. What is no image has one too: decoding it will say so."""
    return Content(hashlib.sha256(data).hexdigest(), _lost(data))


def of_files(paths: Sequence[Path]) -> list[Content]:
    """The contents of image files, remembered as a whole. Raises OSError for a file that cannot be read, is no regular
    file, is larger than ``BYTE_LIMIT``, or changes meanwhile."""
    found = digest.remembered(["images", _FORMAT], paths, lambda: _read(list(map(str, paths))))
    return [Content(*values) for values in found]


def of_listed(folder: str, listing: Listing) -> list[Content]:
    """``of_files`` for the files below ``folder``, an absolute path, which have just been listed."""
    files = [(f"{folder}/{name}", known) for name, known in listing.files]
    found = digest.remembered_of(["images", _FORMAT], files, lambda: _read([path for path, _ in files]))
    return [Content(*values) for values in found]


def _read(paths: Sequence[str]) -> list[Content]:
    """Read and hashed by several threads: both are done outside of Python's lock, and a disk may be far away."""

    def one(path: str) -> Content:
        with room_for(os.stat(path).st_size):  # noqa: PTH116  of a million files
            return of_bytes(read_regular(Path(path), BYTE_LIMIT))

    def some(start: int) -> list[Content]:
        return [one(path) for path in paths[start : start + _AT_A_TIME]]

    with ThreadPoolExecutor(_THREADS) as threads:
        try:
            return [content for part in threads.map(some, range(0, len(paths), _AT_A_TIME)) for content in part]
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            raise


def room_for(size: int) -> AbstractContextManager[object]:
    """Threads that read files hold one large one at a time."""
    return _one_large if size > _LARGE else nullcontext()


def remarks(contents: Sequence[Content]) -> Iterator[str]:
    """Sentences on what the pixels of these images will not show."""
    total = f"{len(contents):,} images"
    if alpha := sum(_ALPHA in content.lost for content in contents):
        yield f"{alpha:,} of {total} have transparency, which is dropped: what it covers is seen as the file holds it"
    if deep := sum(_DEEP in content.lost for content in contents):
        yield f"{deep:,} of {total} have more than 8 bits per channel, of which the high 8 are used"


def unread(files: Iterable[Path]) -> Iterator[str]:
    """A sentence on the files that are left out because of their suffix; hidden ones are nobody's images."""
    kinds = Counter(
        path.suffix.lower() or "without a suffix" for path in files if path.name[0] != "." and path.is_file()
    )
    if kinds:
        listed = few(f"{readable(kind)}: {count:,}" for kind, count in kinds.most_common())
        yield f"{kinds.total():,} files are not read because of their suffix ({listed})"


def _lost(data: bytes) -> str:
    if data.startswith(_JPEG):
        return ""
    alpha, deep = False, False
    if found := png.depth_and_alpha(data):
        deep, alpha = found[0] > 8, found[1]
    else:
        with suppress(Exception), opened(data) as image:
            alpha = image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info
            deep = image.mode.startswith("I") or _bits(image) > 8
    return _ALPHA * alpha + _DEEP * deep


def _bits(image: object) -> int:
    """Bits per channel by the header of a TIFF or PPM file; 8 where it does not say."""
    if tags := getattr(image, "tag_v2", None):
        return int(max(tags.get(258, (8,))))
    arguments = [tile[3] for tile in getattr(image, "tile", ()) if tile[0] == "ppm"]
    return int(arguments[0][1]).bit_length() if arguments else 8


def shared_images(scored: Dataset, trained: Dataset) -> str | None:
    """A sentence on scored images that are trained on too; None where there are none, or their bytes are not known."""
    known = set(trained.digests or ())
    both = sum(image in known for image in scored.digests or ())
    if not both:
        return None
    return f"{both:,} of {len(scored):,} images of the split '{scored.split}' are in the split '{trained.split}' too"

"""What a map-style data set of (image, target) pairs holds, without decoding its images."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from clipeval.datasets import contents
from clipeval.datasets.contents import Content
from clipeval.datasets.images import BYTE_LIMIT, FORMATS, eight_bit, opened, require_unchanged
from clipeval.paths import readable
from clipeval.regular import read_regular


@dataclass(frozen=True)
class Walk:
    """Per sample: its id, its target, and a digest of its image (how its file is decoded, and crop; or pixels)."""

    ids: list[str]
    targets: list[Any]
    image_digests: list[str]
    contents: list[Content]
    """Of the image files."""


def walk(source: Any, root: Path) -> Walk:
    """Take every item of ``source`` as it comes, with image files left unread.

    The data set's own code yields each target, so labels are exactly its labels, at the price of a directory listing
    instead of decoding every image. Ids are paths below ``root`` (``#1``, ``#2``... for further samples of one file)
    or positions where images are not files. Raises OSError for a missing file and whatever the data set raises.
    """
    images: list[_Unread | str] = []
    targets = []
    with _opening(lambda path: _Unread(path)):
        for index in range(len(source)):
            image, target = source[index]
            images.append(image if isinstance(image, _Unread) else _pixels_digest(image))
            targets.append(target)
    paths = list(dict.fromkeys(image.path for image in images if isinstance(image, _Unread)))
    found_files = dict(zip(paths, contents.of_files([Path(path) for path in paths]), strict=True))
    ids, digests = [], []
    seen: Counter[str] = Counter()
    for index, found in enumerate(images):
        if isinstance(found, str):
            ids.append(str(index))
            digests.append(found)
            continue
        name = _relative(found.path, root)
        ids.append(f"{name}#{seen[name]}" if seen[name] else name)
        seen[name] += 1
        digests.append(f"{found_files[found.path].pixels}{found.box or ''}")
    return Walk(ids, targets, digests, list(found_files.values()))


@dataclass(frozen=True)
class _Unread:
    """Stands for an image file; answers what loaders ask of an image before handing it on."""

    path: str
    box: tuple[int, ...] | None = None

    def convert(self, mode: str) -> _Unread:
        return self

    def crop(self, box: tuple[int, ...]) -> _Unread:
        return _Unread(self.path, box)


def read(source: Any, index: int, image_digest: str, sample: str) -> Image.Image:
    """The image of an item, decoded from the bytes that ``image_digest`` of the walk is of.

    Raises DataError when they changed, TooLarge, and whatever the data set or Pillow raises.
    """
    files: list[str] = []
    with contextlib.ExitStack() as open_images:

        def from_bytes(path: str) -> Image.Image:
            data = read_regular(Path(path), BYTE_LIMIT)
            files.append(hashlib.sha256(data).hexdigest())
            return eight_bit(open_images.enter_context(opened(data)))

        with _opening(from_bytes):
            image: Image.Image = source[index][0]
        image.load()
    if not files:
        require_unchanged(_pixels_digest(image), image_digest, sample)
    for file_digest in files:
        require_unchanged(file_digest, image_digest[: len(file_digest)], sample)
    return image


@contextlib.contextmanager
def _opening(open_path: Callable[[str], Any]) -> Iterator[None]:
    """Inside, whoever lets Pillow open an image file gets what ``open_path`` makes of its path.

    What has no path is opened, as one of the formats that are decoded."""
    original = Image.open

    def stand_in(file: Any, *arguments: Any, **keywords: Any) -> Any:
        path = file if isinstance(file, str | os.PathLike) else getattr(file, "name", file)
        return open_path(os.fspath(path)) if isinstance(path, str | os.PathLike) else original(path, formats=FORMATS)

    Image.open = stand_in  # type: ignore[assignment]
    try:
        yield
    finally:
        Image.open = original


def _relative(path: str, root: Path) -> str:
    absolute, base = Path(path).absolute(), root.absolute()
    return readable(absolute.relative_to(base).as_posix() if absolute.is_relative_to(base) else absolute.name)


def _pixels_digest(image: Image.Image) -> str:
    return hashlib.sha256(repr((image.mode, image.size)).encode() + image.tobytes()).hexdigest()

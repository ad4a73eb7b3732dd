"""What a map-style data set of (image, target) pairs holds, without decoding its images."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from clipeval.datasets.fingerprint import of_files


@dataclass(frozen=True)
class Walk:
    """Per sample: its id, its target, and a digest of its image (file bytes and crop, or pixels)."""

    ids: list[str]
    targets: list[Any]
    image_digests: list[str]


def walk(source: Any, root: Path) -> Walk:
    """Take every item of ``source`` as it comes, with image files left unread.

    The data set's own code yields each target, so labels are exactly its labels, at the price of a directory listing
    instead of decoding every image. Ids are paths below ``root`` (``#1``, ``#2``... for further samples of one file)
    or positions where images are not files. Raises OSError for a missing file and whatever the data set raises.
    """
    images: list[_Unread | str] = []
    targets = []
    with _images_unread():
        for index in range(len(source)):
            image, target = source[index]
            images.append(image if isinstance(image, _Unread) else _pixels_digest(image))
            targets.append(target)
    paths = list(dict.fromkeys(image.path for image in images if isinstance(image, _Unread)))
    file_digests = dict(zip(paths, of_files([Path(path) for path in paths]), strict=True))
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
        digests.append(f"{file_digests[found.path]}{found.box or ''}")
    return Walk(ids, targets, digests)


@dataclass(frozen=True)
class _Unread:
    """Stands for an image file; answers what loaders ask of an image before handing it on."""

    path: str
    box: tuple[int, ...] | None = None

    def convert(self, mode: str) -> _Unread:
        return self

    def crop(self, box: tuple[int, ...]) -> _Unread:
        return _Unread(self.path, box)


@contextlib.contextmanager
def _images_unread() -> Iterator[None]:
    original = Image.open

    def stand_in(file: Any, *arguments: Any, **keywords: Any) -> _Unread:
        return _Unread(os.fspath(getattr(file, "name", file)))

    Image.open = stand_in  # type: ignore[assignment]
    try:
        yield
    finally:
        Image.open = original


def _relative(path: str, root: Path) -> str:
    absolute, base = Path(path).absolute(), root.absolute()
    return absolute.relative_to(base).as_posix() if absolute.is_relative_to(base) else absolute.name


def _pixels_digest(image: Image.Image) -> str:
    return hashlib.sha256(repr((image.mode, image.size)).encode() + image.tobytes()).hexdigest()

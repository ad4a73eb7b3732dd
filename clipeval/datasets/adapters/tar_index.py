"""Where every sample of a webdataset shard lies in its tar file, so that images can be read in any order.

A sample is the files of one key: ``KEY.jpg`` with ``KEY.cls``, ``KEY.npy`` or ``KEY.txt``, as webdataset groups them.
"""

from __future__ import annotations

import hashlib
import io
import math
import re
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from clipeval import digest, tar
from clipeval.datasets import contents
from clipeval.datasets.contents import Content
from clipeval.datasets.images import BYTE_LIMIT, SUFFIXES
from clipeval.errors import DataError, few
from clipeval.regular import open_regular

_FIRST = ("webp", "png", "jpg", "jpeg")
IMAGE_EXTENSIONS = (*_FIRST, *sorted({suffix[1:] for suffix in SUFFIXES}.difference(_FIRST)))
"""In the order in which a sample's image is looked for, CLIP_benchmark's first."""

_LABEL_LIMITS = {"cls": 100, "npy": 1 << 20, "txt": 1 << 20}
"""Bytes of a label or caption file; more are no label and no caption."""
_LIMITS = dict.fromkeys(IMAGE_EXTENSIONS, BYTE_LIMIT) | _LABEL_LIMITS
_FORMAT = 4
_THREADS = 4
"""Shards that are read at a time."""


@dataclass(frozen=True)
class TarSample:
    """One sample of a shard: its key, where its image lies, and what the other files say (None where absent)."""

    key: str
    offset: int
    size: int
    sha256: str
    """The digest of the image's bytes."""
    lost: str
    """What its pixels will not show (``contents.Content``)."""
    cls: int | None
    npy: list[float] | None
    txt: list[str] | None

    @property
    def content(self) -> Content:
        """The image."""
        return Content(self.sha256, self.lost)


@dataclass(frozen=True)
class TarIndex:
    """All samples of a shard in its order."""

    samples: tuple[TarSample, ...]

    @property
    def images_digest(self) -> str:
        """Hex SHA-256 of the images' digests in their order."""
        pixels = (sample.content.pixels.partition(">>") for sample in self.samples)
        return hashlib.sha256(b"".join(bytes.fromhex(sha256) + how.encode() for sha256, _, how in pixels)).hexdigest()


def index_tars(paths: Sequence[Path]) -> list[TarIndex]:
    """``index_tar`` of each, several at a time: hashing is done outside of Python's lock, and disks may be far away."""
    with ThreadPoolExecutor(_THREADS) as threads:
        try:
            return list(threads.map(index_tar, paths))
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            raise


def index_tar(path: Path) -> TarIndex:
    """Read a shard once; what was found is remembered as long as the file is unchanged.

    Raises DataError naming the shard, and the key where there is one, when the tar is missing, truncated, damaged or
    changes meanwhile, or a sample has no image, no label and no caption, or a label that cannot be read.
    """
    try:
        stored = digest.remembered(["tar", _FORMAT], [path], lambda: [[*vars(found).values()] for found in _read(path)])
    except OSError as error:
        raise DataError(f"{path}: cannot read the shard: {error.strerror}. Download it again.") from error
    return TarIndex(tuple(TarSample(*values) for values in stored))


@dataclass(frozen=True)
class _File:
    """A member, and what it holds where that is asked for: of an image its content, of a label or caption its bytes."""

    member: tar.Member
    content: Content | None = None
    data: bytes = b""


def _read(path: Path) -> list[TarSample]:
    """Every member is read when its header has been, so that one pass over the file will do."""
    found: dict[str, dict[str, _File]] = {}
    try:
        with open_regular(path) as file:
            for member in tar.members(path):
                where = f"{path}: sample {member.key}"
                files = found.setdefault(member.key, {})
                if member.extension in files:
                    raise DataError(f"{where} has two files .{member.extension}.")
                if member.is_sparse:
                    raise DataError(
                        f"{where}: .{member.extension} is a sparse file. Write the tar without the option -S."
                    )
                files[member.extension] = _filled(file, member)
    except tar.Damaged as error:
        raise DataError(f"{path}: the tar is truncated or damaged {error}. Download it again.") from error
    return [_sample(key, files, f"{path}: sample {key}") for key, files in found.items()]


def _filled(file: BinaryIO, member: tar.Member) -> _File:
    """What is too large to be read is left: it is an error where it is needed."""
    if member.size > _LIMITS.get(member.extension, -1):
        return _File(member)
    with contents.room_for(member.size):
        file.seek(member.offset)
        data = file.read(member.size)
        return _File(member, data=data) if member.extension in _LABEL_LIMITS else _File(member, contents.of_bytes(data))


def _sample(key: str, files: dict[str, _File], where: str) -> TarSample:
    image = next((files[name] for name in IMAGE_EXTENSIONS if name in files), None)
    if image is None:
        if any(name.rpartition(".")[2] in IMAGE_EXTENSIONS for name in files):
            raise DataError(
                f"{where} has no image of its own, but {_listed(files)}: keys end at the first dot of a name. Rename "
                "the members of the shard so that only the suffix follows a dot."
            )
        raise DataError(f"{where} has no image (.{', .'.join(_FIRST)}, ...), only {_listed(files)}.")
    values = {name: files[name].data for name in _LABEL_LIMITS if name in files}
    for needed in (image, *(files[name] for name in values)):
        _require_small(needed.member, where)
    content = image.content
    assert content is not None
    if not values:
        raise DataError(f"{where} has no label (.cls, .npy) and no caption (.txt), only {_listed(files)}.")
    try:
        return TarSample(
            key,
            image.member.offset,
            image.member.size,
            content.sha256,
            content.lost,
            cls=_whole_number(values["cls"]) if "cls" in values else None,
            npy=_numbers(values["npy"]) if "npy" in values else None,
            txt=values["txt"].decode("utf-8-sig").splitlines() if "txt" in values else None,
        )
    except ValueError as error:
        raise DataError(f"{where}: its label or caption cannot be read: {error}.") from error


def _require_small(member: tar.Member, where: str) -> None:
    limit = _LIMITS[member.extension]
    if member.size > limit:
        raise DataError(f"{where}: .{member.extension} has {member.size:,} bytes, more than the limit of {limit:,}.")


def _whole_number(data: bytes) -> int:
    if not re.fullmatch(rb"\s*[+-]?[0-9]{1,18}\s*", data):
        raise ValueError(f"expected a class index in .cls, found {data.decode(errors='backslashreplace')!r:.40}")
    return int(data)


def _numbers(data: bytes) -> list[float]:
    """The numbers of a ``.npy`` file of any shape, in their order. Raises ValueError for anything else."""
    stream = io.BytesIO(data)
    headers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    try:
        version = np.lib.format.read_magic(stream)
        shape, _, dtype = headers[version](stream)
    except Exception as error:  # NumPy reads the header as Python text, which fails in many ways
        raise ValueError("the .npy file is damaged or none") from error
    if dtype.kind not in "biuf":
        raise ValueError(f"the .npy file holds {dtype} and not numbers")
    if math.prod(shape) * dtype.itemsize != len(data) - stream.tell():
        raise ValueError(f"the .npy file says it has the shape {shape!s:.40}, which is not what it holds")
    if math.prod(shape) == 0:
        raise ValueError("the .npy file holds no number")
    stream.seek(0)
    return np.lib.format.read_array(stream, allow_pickle=False).ravel().tolist()  # type: ignore[no-any-return]


def _listed(files: Collection[str]) -> str:
    return few([f".{name}" for name in files])

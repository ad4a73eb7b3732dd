"""Where every sample of a webdataset shard lies in its tar file, so that images can be read in any order.

A sample is the files of one key: ``KEY.jpg`` with ``KEY.cls``, ``KEY.npy`` or ``KEY.txt``, as webdataset groups them.
Member names are only ever keys: nothing is extracted to disk.
"""

from __future__ import annotations

import hashlib
import io
import re
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clipeval import digest
from clipeval.datasets.fingerprint import remembered
from clipeval.errors import DataError

IMAGE_EXTENSIONS = ("webp", "png", "jpg", "jpeg")
"""In the order in which CLIP_benchmark looks for a sample's image."""

_LABEL_EXTENSIONS = ("cls", "npy", "txt")
_KEY_AND_EXTENSION = re.compile(r"((?:.*/|)[^.]+)[.]([^/]*)", re.DOTALL)
_META_NAME = re.compile(r"(^|/)__[^/]*__($|/)")
_BLOCK_BYTES = 512


@dataclass(frozen=True)
class TarSample:
    """One sample of a shard: its key, where its image lies, and what the other files say (None where absent)."""

    key: str
    offset: int
    size: int
    cls: int | None
    npy: list[int] | None
    txt: list[str] | None


@dataclass(frozen=True)
class TarIndex:
    """All samples of a shard in its order, and the digest of their images."""

    samples: tuple[TarSample, ...]
    images_digest: str


def index_tar(path: Path) -> TarIndex:
    """Read a shard once; what was found is remembered under the file's digest.

    Raises DataError naming the shard, and the key where there is one, when the tar is missing, truncated or damaged,
    or a sample has no image, no label and no caption, or a label that cannot be read.
    """
    try:
        file_digest = digest.of_file(path)
    except OSError as error:
        raise DataError(f"{path}: cannot read the shard: {error.strerror}. Download it again.") from error
    stored = remembered(["tar", 1, file_digest], lambda: _read(path))
    return TarIndex(tuple(TarSample(*values) for values in stored["samples"]), stored["images"])


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, dict[str, tuple[int, int]]] = {}
    for key, extension, offset, size in _members(path):
        files = found.setdefault(key, {})
        if extension in files:
            raise DataError(f"{path}: sample {key} has two files .{extension}.")
        files[extension] = (offset, size)
    images = hashlib.sha256()
    samples = []
    with path.open("rb") as file:
        for key, files in found.items():
            image = next((files[name] for name in IMAGE_EXTENSIONS if name in files), None)
            where = f"{path}: sample {key}"
            if image is None:
                raise DataError(f"{where} has no image (.{', .'.join(IMAGE_EXTENSIONS)}), only {_listed(files)}.")
            images.update(hashlib.sha256(_bytes(file, *image)).digest())
            values = {name: _bytes(file, *files[name]) for name in _LABEL_EXTENSIONS if name in files}
            if not values:
                raise DataError(f"{where} has no label (.cls, .npy) and no caption (.txt), only {_listed(files)}.")
            samples.append((key, *image, *_decoded(values, where)))
    return {"samples": samples, "images": images.hexdigest()}


def _members(path: Path) -> list[tuple[str, str, int, int]]:
    """Key, extension, data offset and size of every file of a tar, in its order."""
    members = []
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                match = _KEY_AND_EXTENSION.fullmatch(member.name)
                if member.isfile() and match and not _META_NAME.search(member.name):
                    members.append((match[1], match[2].lower(), member.offset_data, member.size))
            end = tar.offset
    except (tarfile.TarError, OSError, ValueError) as error:
        raise DataError(f"{path}: the tar is truncated or damaged: {error}. Download it again.") from error
    with path.open("rb") as file:  # tarfile takes a damaged or missing header for the end of the archive
        file.seek(end)
        if file.read(_BLOCK_BYTES) != bytes(_BLOCK_BYTES):
            last = members[-1][0] if members else "its start"
            raise DataError(f"{path}: the tar is truncated or damaged after {last}. Download it again.")
    return members


def _bytes(file: io.BufferedReader, offset: int, size: int) -> bytes:
    file.seek(offset)
    return file.read(size)


def _decoded(values: dict[str, bytes], where: str) -> tuple[int | None, list[int] | None, list[str] | None]:
    label: int | None = None
    labels: list[int] | None = None
    captions: list[str] | None = None
    try:
        if "cls" in values:
            label = int(values["cls"])
        if "npy" in values:
            labels = np.load(io.BytesIO(values["npy"]), allow_pickle=False).astype(int).ravel().tolist()
        if "txt" in values:
            captions = values["txt"].decode("utf-8").splitlines()
    except ValueError as error:
        raise DataError(f"{where}: its label or caption cannot be read: {error}.") from error
    return label, labels, captions


def _listed(files: dict[str, tuple[int, int]]) -> str:
    return ", ".join(f".{name}" for name in files)

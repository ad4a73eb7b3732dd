"""Webdataset shards that tests write, sound and hostile."""

from __future__ import annotations

import io
import struct
import tarfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from helpers import add, encoded, picture


def image(number: int, kind: str = "JPEG") -> bytes:
    """An image file of odd size whose colours depend on its number."""
    return encoded(picture(number, number, (41 + number % 5, 37)), kind)


def write(path: Path, samples: Mapping[str, Mapping[str, bytes]]) -> Path:
    """A tar of samples: key to extension to bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for key, files in samples.items():
            for extension, data in files.items():
                add(tar, f"{key}.{extension}", data)
    return path


def sound(folder: Path, sizes: list[int]) -> str:
    """Shards with so many samples each, captions ``sample SHARD-NUMBER``; returns their pattern."""
    for shard, size in enumerate(sizes):
        samples = {
            f"{shard:05d}{i:04d}": {"jpg": image(100 * shard + i), "txt": f"sample {shard}-{i}".encode()}
            for i in range(size)
        }
        write(folder / f"{shard:05d}.tar", samples)
    return f"{folder}/{{00000..{len(sizes) - 1:05d}}}.tar"


def pixels(seed: int, height: int, width: int) -> np.ndarray:
    """A smooth picture with detail, ``[height, width, 3]`` uint8."""
    from PIL import Image

    rng = np.random.default_rng(seed)
    total = np.zeros((height, width, 3))
    for cells in (2, 8, 32):
        coarse = Image.fromarray(rng.integers(0, 256, (cells, cells, 3)).astype(np.uint8))
        total += np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)) / cells**0.5
    return np.clip(total * 0.8, 0, 255).astype(np.uint8)


def bomb() -> bytes:
    """A PNG of a few kilobytes that says it has 50,000 x 50,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    rows = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def truncated_jpeg() -> bytes:
    """The first half of a JPEG file."""
    buffer = io.BytesIO()
    from PIL import Image

    Image.fromarray(pixels(0, 64, 80)).save(buffer, "JPEG")
    return buffer.getvalue()[: len(buffer.getvalue()) // 2]

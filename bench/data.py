"""Pictures and webdataset shards for the benchmarks."""

from __future__ import annotations

import io
import tarfile
import time
from pathlib import Path

import numpy as np


def write_split(folder: Path, samples: list[dict[str, bytes]], shards: int = 2) -> None:
    """One split in CLIP_benchmark's webdataset layout; a sample maps file endings to bytes."""
    folder.mkdir(parents=True)
    (folder / "nshards.txt").write_text(str(shards))
    for shard in range(shards):
        with tarfile.open(folder / f"{shard}.tar", "w") as tar:
            for number in range(shard * len(samples) // shards, (shard + 1) * len(samples) // shards):
                for suffix, data in samples[number].items():
                    info = tarfile.TarInfo(f"s{number:07d}.{suffix}")
                    info.size, info.mtime = len(data), int(time.time())
                    tar.addfile(info, io.BytesIO(data))


def jpeg(rng: np.random.Generator) -> bytes:
    """A picture of 256-512 px per side with structure at many scales, as photographs have."""
    from PIL import Image

    height, width = rng.integers(256, 513, 2)
    total = np.zeros((height, width, 3))
    for cells in (2, 8, 32):
        coarse = Image.fromarray(rng.integers(0, 256, (cells, cells, 3)).astype(np.uint8))
        total += np.asarray(coarse.resize((int(width), int(height)), Image.Resampling.BICUBIC)) / cells**0.5
    buffer = io.BytesIO()
    Image.fromarray(np.clip(total * 0.8, 0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()

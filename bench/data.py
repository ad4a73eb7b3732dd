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


def tiny_study(folder: Path) -> Path:
    """Three small checkpoints, measured on a folder of images and on captioned shards: ``folder/{*.pt,colours,pairs,out}``."""
    import clipeval

    rng = np.random.default_rng(0)
    for label, name in enumerate(("red", "green", "blue")):
        for split in ("train", "test"):
            for number in range(3 + label):
                write_picture(folder / "colours" / split / name / f"{number}.png", rng, label)
    captioned = [
        {"png": _coloured(rng, number % 3), "txt": f"a square\nnumber {number}".encode()} for number in range(11)
    ]
    write_split(folder / "pairs" / "test", captioned)
    (folder / "pairs" / "dataset_type.txt").write_text("retrieval")
    names = ("good.pt", "second.pt", "third.pt")
    for seed, name in enumerate(names):
        tiny_checkpoint(folder / name, seed)
    words = [str(folder / name) for name in names]
    data = [f"folder:{folder / 'colours'}", f"wds:{folder / 'pairs'}"]
    clipeval.run(words, data, out=folder / "out", workers=0)
    return folder


def tiny_checkpoint(path: Path, seed: int = 0) -> Path:
    """A small random CLIP in clipeval-train's format."""
    import open_clip
    import torch

    config = {
        "embed_dim": 8,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 16, "patch_size": 16, "head_width": 8},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 8, "heads": 1, "layers": 1},
    }
    torch.manual_seed(seed)
    weights = open_clip.CLIP(
        **{key: dict(part) if isinstance(part, dict) else part for key, part in config.items()}
    ).state_dict()
    facts = {"source": "toy", "samples_seen": 1000 * (seed + 1), "unique_samples": 1000.0, "seed": seed}
    content = {
        "format": "clipeval-train-1",
        "state_dict": weights,
        "model_cfg": config,
        "arch": "tiny",
        "metadata": facts,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path)
    return path


def write_picture(path: Path, rng: np.random.Generator, label: int) -> None:
    """A picture in which the colour channel ``label`` is the brightest."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_coloured(rng, label))


def _coloured(rng: np.random.Generator, label: int) -> bytes:
    from PIL import Image

    pixels = rng.integers(0, 120, (37, 41, 3))
    pixels[..., label] += 120
    buffer = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()

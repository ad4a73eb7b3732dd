"""Images per second and core from JPEG shards to training batches: ours against open_clip_train's own data pipeline.

Both run in this process on one thread, over the same shards, with tokenised captions, batches of 128 and crops to
224 pixels. The rate is per second of CPU time, so other programs on the machine do not count; ours hands over bytes,
which are normalised on the device, open_clip's floats. Rounds alternate; the median of three is shown.
"""

from __future__ import annotations

import io
import os
import statistics
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from bench.measure import machine

SIDES = (256, 512)
SAMPLES, SHARDS, BATCH, SEED = 1536, 4, 128, 0
ROUNDS, BATCHES_PER_ROUND = 3, 3
WORDS = (
    "a",
    "photo",
    "of",
    "the",
    "red",
    "old",
    "house",
    "near",
    "small",
    "green",
    "trees",
    "with",
    "dog",
    "and",
    "car",
)


def main() -> None:
    """Print one line per image size."""
    os.environ["OMP_NUM_THREADS"] = "1"
    import torch

    torch.set_num_threads(1)
    print(machine())
    for side in SIDES:
        with tempfile.TemporaryDirectory() as folder:
            os.environ["CLIPEVAL_CACHE"] = f"{folder}/cache"
            shards = f"{folder}/{{0..{SHARDS - 1}}}.tar"
            mean = write_shards(Path(folder), side)
            ours, theirs = _ours(shards, folder), _theirs(shards)
            rates: tuple[list[float], list[float]] = ([], [])
            for _ in range(ROUNDS):
                for pipeline, measured in zip((ours, theirs), rates, strict=True):
                    measured.append(_rate(pipeline))
        mine, other = (statistics.median(measured) for measured in rates)
        print(
            f"{side} x {side} JPEG of {mean / 1e3:.0f} kB: clipeval_train {mine:5.0f} images/s, "
            f"open_clip_train {other:5.0f} images/s, ratio {mine / other:.2f}"
        )


def write_shards(folder: Path, side: int, samples: int = SAMPLES) -> float:
    """``samples`` image-text pairs in ``SHARDS`` tar files; returns the mean size of a JPEG file in bytes."""
    rng = np.random.default_rng(SEED)
    files = [_jpeg(rng, side) for _ in range(48)]
    for shard in range(SHARDS):
        with tarfile.open(folder / f"{shard}.tar", "w") as tar:
            for number in range(shard * samples // SHARDS, (shard + 1) * samples // SHARDS):
                caption = " ".join(rng.choice(WORDS, 12))
                for extension, data in (("jpg", files[number % len(files)]), ("txt", caption.encode())):
                    info = tarfile.TarInfo(f"{number:09d}.{extension}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
    return statistics.mean(map(len, files))


def _jpeg(rng: np.random.Generator, side: int) -> bytes:
    """Structure at many scales, as photographs have, and sensor noise."""
    from PIL import Image

    total = rng.normal(0, 12, (side, side, 3))
    for cells in (2, 8, 32, 128):
        coarse = Image.fromarray(rng.integers(0, 256, (cells, cells, 3)).astype(np.uint8))
        total += np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC)) / cells**0.5
    buffer = io.BytesIO()
    Image.fromarray(np.clip(total * 0.8, 0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def _ours(shards: str, out: str) -> Iterator[object]:
    from clipeval_train.config import PretrainConfig
    from clipeval_train.input import open_corpus
    from clipeval_train.model import resolve

    data = [{"source": "bench", "shards": shards}]
    settings = {"model": "ViT-B-32", "data": data, "samples": 10**9, "batch_size": BATCH, "lr": 1e-3, "out": out}
    config = PretrainConfig.model_validate(settings | {"workers": 0})
    corpus = open_corpus(config, resolve(config.model, config.arch))
    return corpus.batches(0, config.samples // BATCH * BATCH, BATCH)


def _theirs(shards: str) -> Iterator[object]:
    import open_clip
    from open_clip_train import data as peer

    # open_clip_train was written for an older webdataset; this one also yields marks of a shard's end.
    expand = peer.tar_file_expander
    peer.tar_file_expander = lambda *a, **k: (file for file in expand(*a, **k) if "fname" in file)
    arguments = SimpleNamespace(
        train_data=shards, train_num_samples=SAMPLES, train_data_upsampling_factors=None, dataset_resampled=False,
        batch_size=BATCH, world_size=1, workers=0, seed=SEED,
    )  # fmt: skip
    transform = open_clip.image_transform(
        224, is_train=True, mean=open_clip.OPENAI_DATASET_MEAN, std=open_clip.OPENAI_DATASET_STD
    )
    data = peer.get_wds_dataset(arguments, transform, is_train=True, tokenizer=open_clip.get_tokenizer("ViT-B-32"))
    epoch = 0
    while True:
        data.set_epoch(epoch)
        yield from data.dataloader
        epoch += 1


def _rate(pipeline: Iterator[object]) -> float:
    """Images per CPU second of the next batches, after one that is not counted."""
    next(pipeline)
    began = time.process_time()
    for _ in range(BATCHES_PER_ROUND):
        next(pipeline)
    return BATCHES_PER_ROUND * BATCH / (time.process_time() - began)


if __name__ == "__main__":
    main()

"""From 35 data sets of JPEGs to pixels in memory, for two checkpoints: decoding processes of one run against a DataLoader
of torch for each data set and checkpoint.

The checkpoints take other pixels, so that both decode; the second line is of pixels that the cache has. Wall
seconds of this process and its children; rounds alternate, the median of three is shown.
"""

from __future__ import annotations

import io
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from bench.data import jpeg
from bench.measure import machine

SETS, FEWEST, MOST, WORKERS, BATCH, ROUNDS = 35, 64, 500, 2, 64, 3


def main() -> None:
    """Print seconds and ratios."""
    os.environ["OMP_NUM_THREADS"] = "1"
    import torch

    torch.set_num_threads(1)
    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        os.environ["CLIPEVAL_CACHE"] = f"{folder}/cache"
        sets = _data_sets(Path(folder))
        print(f"{SETS} sets, {sum(map(len, sets)):,} images, {WORKERS} processes")
        for keeps, what in ((False, "decoded"), (True, "read from the cache")):
            checkpoints = [_checkpoint(number, 64 if keeps else 32) for number in range(2)]
            if keeps:
                _ours(sets, checkpoints, keeps)
            taken: tuple[list[float], list[float]] = ([], [])
            for _ in range(ROUNDS):
                for one, seconds in zip((_ours, _theirs), taken, strict=True):
                    seconds.append(_seconds(one, sets, checkpoints, keeps))
            mine, theirs = (statistics.median(seconds) for seconds in taken)
            print(f"{what:20} {mine:6.2f} s, a DataLoader each {theirs:6.2f} s, ratio {theirs / mine:.2f}")


def _data_sets(folder: Path) -> list[Any]:
    from clipeval.datasets.images import decode
    from clipeval.datasets.loaded import LoadedDataset

    rng = np.random.default_rng(0)
    files = [_small(jpeg(rng)) for _ in range(24)]
    paths = []
    for number, data in enumerate(files):
        paths.append(folder / f"{number}.jpg")
        paths[-1].write_bytes(data)
    sizes = np.linspace(FEWEST, MOST, SETS).astype(int)

    def of(number: int, size: int) -> LoadedDataset:
        def read(index: int) -> Any:
            return decode(paths[index % len(paths)], f"sample {index}")

        return LoadedDataset(
            name=f"set{number}",
            split="test",
            fingerprint=f"{number:064d}",
            ids=[str(i) for i in range(size)],
            read=read,
        )

    return [of(number, int(size)) for number, size in enumerate(sizes)]


def _small(data: bytes) -> bytes:
    """As those of many data sets are, so that starting processes counts."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.open(io.BytesIO(data)).resize((96, 96)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


@dataclass(frozen=True)
class _Resize:
    side: int

    def __call__(self, image: Any) -> np.ndarray:
        return np.asarray(image.resize((self.side, self.side)))


def _checkpoint(number: int, side: int) -> Any:
    settings = {"number": number, "side": side}
    return SimpleNamespace(pixels=_Resize(side), pixel_settings=settings, record_shape=(side, side, 3), device="cpu")


def _seconds(one: Callable[..., None], *arguments: Any) -> float:
    began = time.monotonic()
    one(*arguments)
    return time.monotonic() - began


def _ours(sets: list[Any], checkpoints: list[Any], keeps: bool) -> None:
    from clipeval.embeddings.decoders import Decoders
    from clipeval.embeddings.pixels import LoaderSettings, loaded

    decoders = Decoders(WORKERS, sets)
    settings = LoaderSettings(BATCH, WORKERS, keeps=None if keeps else (), decoders=decoders)
    for checkpoint in checkpoints:
        for dataset in sets:
            with loaded(dataset, checkpoint, np.arange(len(dataset)), settings) as batches:
                assert sum(len(tensor) for _, tensor, _ in batches) == len(dataset)
    decoders.close()


def _theirs(sets: list[Any], checkpoints: list[Any], keeps: bool) -> None:
    import torch

    from clipeval.embeddings.pixels import pixel_file

    class Batches:
        def __init__(self, dataset: Any, checkpoint: Any) -> None:
            self.dataset, self.checkpoint = dataset, checkpoint
            self.file = pixel_file(dataset, checkpoint, keeps=keeps)

        def __len__(self) -> int:
            return -(-len(self.dataset) // BATCH)

        def __getitem__(self, number: int) -> Any:
            indices = np.arange(number * BATCH, min((number + 1) * BATCH, len(self.dataset)))
            rows, valid = self.file.read(indices)
            pixels = rows.reshape(len(indices), *self.checkpoint.record_shape)
            for row in np.flatnonzero(~valid):
                pixels[row] = self.checkpoint.pixels(self.dataset.image(int(indices[row])))
            return torch.from_numpy(pixels)

    for checkpoint in checkpoints:
        for dataset in sets:
            batches: Any = Batches(dataset, checkpoint)
            workers = WORKERS if len(batches) >= 4 else 0
            loader: Any = torch.utils.data.DataLoader(batches, batch_size=None, num_workers=workers)
            assert sum(map(len, loader)) == len(dataset)

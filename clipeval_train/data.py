"""Image-text pairs in memory, and the batches made of them."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from clipeval.config import DatasetEntry
from clipeval.datasets import open_dataset
from clipeval.datasets.base import Dataset
from clipeval.errors import UsageError
from clipeval_train import model
from clipeval_train.config import PretrainConfig, SourceEntry
from clipeval_train.stream import Stream

SMALLEST_CROP = 0.9
"""Area of the smallest random crop as a share of the image's: open_clip's default for pre-training."""


class Corpus:
    """All pairs of a run: positions of the sample stream in, training batches out."""

    def __init__(self, config: PretrainConfig, architecture: model.Architecture) -> None:
        """Reads every source once. Raises UsageError or DataError that names the source."""
        images, captions = zip(*(load_pairs(entry, architecture.image_size) for entry in config.data), strict=True)
        texts = [caption for source in captions for caption in source]
        sizes, weights = [len(source) for source in captions], [entry.weight for entry in config.data]
        self._stream = Stream(sizes, weights, config.batch_size, config.seed)
        self._images = torch.from_numpy(np.concatenate(images))
        self._tokens = model.tokenize(architecture, texts)
        self._seed = config.seed
        self._mean = torch.tensor(model.IMAGE_MEAN).view(1, 3, 1, 1) * 255
        self._std = torch.tensor(model.IMAGE_STD).view(1, 3, 1, 1) * 255
        self.fingerprint = hashlib.sha256(self._images.numpy().tobytes() + "\0".join(texts).encode()).hexdigest()

    def __len__(self) -> int:
        return len(self._images)

    def batch(self, start: int, stop: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """The samples at stream positions ``start`` to ``stop`` on ``device``.

        Images ``[b, 3, size, size]`` float32, normalised and cropped at random; tokens ``[b, context_length]`` int64.
        All of it depends on the seed and the positions alone, so a resumed run sees what an uninterrupted one sees.
        """
        chosen = torch.from_numpy(self._stream.take(start, stop))
        images = (self._images[chosen].to(device) - self._mean.to(device)) / self._std.to(device)
        draws = torch.from_numpy(_uniform(self._seed, start, stop)).to(device)
        return crop(images, draws), self._tokens[chosen].to(device)


def crop(images: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
    """A square crop of each image, resized to the image's size (bilinear): ``[n, c, h, w]`` float in and out.

    ``draws`` ``[n, 3]`` in [0, 1) choose its area, from 0.9 to 1 of the image's, and its place in x and y.
    """
    side = (SMALLEST_CROP + (1 - SMALLEST_CROP) * draws[:, 0]).sqrt()
    theta = torch.zeros(len(images), 2, 3, device=images.device)
    theta[:, 0, 0] = theta[:, 1, 1] = side
    theta[:, :, 2] = (1 - side[:, None]) * (2 * draws[:, 1:] - 1)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def load_pairs(entry: SourceEntry, size: int) -> tuple[np.ndarray, list[str]]:
    """The training split of a source: images ``[n, 3, size, size]`` uint8, resized as for evaluation, and n captions.

    A labelled data set without captions gets them from its prompt templates in turn. Raises UsageError for shards
    that cannot be read, and DataError.
    """
    if not entry.shards.startswith("builtin:"):
        raise UsageError(
            f"data: {entry.source}: '{entry.shards}': only builtin: sources are supported by this version, for example "
            "builtin:icons/material or builtin:digits."
        )
    dataset = open_dataset(entry.source, DatasetEntry(spec=entry.shards), "train")
    images = np.empty((len(dataset), 3, size, size), np.uint8)
    for index in range(len(dataset)):
        resized = dataset.image(index).convert("RGB").resize((size, size), Image.Resampling.BICUBIC)
        images[index] = np.asarray(resized).transpose(2, 0, 1)
    return images, _captions(dataset)


def _captions(dataset: Dataset) -> list[str]:
    if dataset.captions is not None:
        return [captions[0] for captions in dataset.captions]
    if dataset.prompts is None or dataset.labels is None:
        raise UsageError(f"data: {dataset.name}: has neither captions nor class names to make them of.")
    texts = dataset.prompts.texts()
    return [texts[label][index % len(texts[label])] for index, label in enumerate(dataset.labels)]


def _uniform(seed: int, start: int, stop: int) -> np.ndarray:
    """``[stop - start, 3]`` float32 in [0, 1): one step of a counter-based generator per position."""
    words = np.random.Philox(key=seed, counter=start).random_raw(4 * (stop - start)).reshape(-1, 4)
    return (words[:, :3] >> np.uint64(40)).astype(np.float32) * np.float32(2**-24)

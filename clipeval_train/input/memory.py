"""Built-in data sets, held in memory at the model's image size."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from PIL import Image

from clipeval.config import DatasetEntry
from clipeval.datasets import open_dataset
from clipeval.datasets.base import Dataset
from clipeval.errors import UsageError
from clipeval_train.config import SourceEntry
from clipeval_train.input.bad import Tally


class MemorySource:
    """One split of a built-in data set: one unit of small images, resized as for evaluation."""

    is_remote = False
    dropped = 0

    def __init__(self, entry: SourceEntry, size: int, split: str = "train") -> None:
        """Raises UsageError for an unknown data set, DataError where it needs a package that is not installed."""
        if entry.caption or entry.where or entry.bad_shards or entry.counts == "stats":
            raise UsageError(f"data: {entry.source}: caption, where, bad_shards and counts are not for built-in data.")
        dataset = open_dataset(entry.source, DatasetEntry(spec=entry.shards), split)
        self.name, self.tally = entry.source, Tally()
        self.captions = _captions(dataset)
        self.images = np.empty((len(dataset), 3, size, size), np.uint8)
        for index in range(len(dataset)):
            resized = dataset.image(index).convert("RGB").resize((size, size), Image.Resampling.BICUBIC)
            self.images[index] = np.asarray(resized).transpose(2, 0, 1)
        self.units = np.array([len(dataset)])
        self.fingerprint = hashlib.sha256(self.images.tobytes() + "\0".join(self.captions).encode()).hexdigest()

    def read(self, index: int, draw: float = 0.0) -> tuple[torch.Tensor, list[str]]:
        """Image ``[3, size, size]`` uint8 and captions of a sample."""
        return torch.from_numpy(self.images[index]), [self.captions[index]]

    def where(self, index: int) -> str:
        """How messages call a sample."""
        return f"{self.name}: sample {index}"


def _captions(dataset: Dataset) -> list[str]:
    """A labelled data set without captions gets them from its prompt templates in turn."""
    if dataset.captions is not None:
        return [captions[0] for captions in dataset.captions]
    if dataset.prompts is None or dataset.labels is None:
        raise UsageError(f"data: {dataset.name}: has neither captions nor class names to make them of.")
    texts = dataset.prompts.texts()
    return [texts[label][index % len(texts[label])] for index, label in enumerate(dataset.labels)]

"""Labelled data sets to fine-tune on, and the batches made of them."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from timm.data.auto_augment import rand_augment_transform
from timm.data.transforms import str_to_pil_interp
from torchvision import transforms

from clipeval import datasets
from clipeval.config import Config, DatasetEntry
from clipeval.datasets.base import Dataset
from clipeval.datasets.draws import hold_out
from clipeval.datasets.subset import Subset
from clipeval.errors import DataError
from clipeval.models.base import Preprocessing
from clipeval_train.finetune.config import Recipe
from clipeval_train.input import Batch, loader
from clipeval_train.input.bad import Tally
from clipeval_train.input.source import Source


@dataclass(frozen=True)
class LabelledSet:
    """One data set: what is trained on, and what is scored."""

    name: str
    train: Dataset
    test: Dataset

    def __post_init__(self) -> None:
        for dataset in (self.train, self.test):
            if dataset.labels is None or dataset.labels.ndim != 1:
                raise DataError(f"{self.name} ({dataset.split}): fine-tuning needs one label per image.")
        names = [dataset.prompts.classes if dataset.prompts else () for dataset in (self.train, self.test)]
        if names[0] != names[1]:
            raise DataError(
                f"{self.name}: '{self.train.split}' has {len(names[0])} classes and '{self.test.split}' "
                f"{len(names[1])}, or they differ in names. Both splits need the same class list."
            )
        if len(found := np.unique(labels_of(self.train))) < 2:
            raise DataError(
                f"{self.name} ({self.train.split}): all images have the label {found[0]}; "
                "a classifier needs at least two classes."
            )


def labels_of(dataset: Dataset) -> np.ndarray:
    """``[n]`` int64; ``LabelledSet`` has checked that they are there."""
    return cast(np.ndarray, dataset.labels)


def open_sets(words: Sequence[str], config: Config, share: float) -> list[LabelledSet]:
    """The data sets that ``words`` name, with ``share`` of each class held out where there is no validation split.

    Raises UsageError for a word that names nothing, and DataError, for a data set without a training split too.
    """
    return [_open_set(name, entry, share) for name, entry in datasets.resolve(words, config).datasets.items()]


def _open_set(name: str, entry: DatasetEntry, share: float) -> LabelledSet:
    if entry.train_split is None:
        raise DataError(
            f"{name}: {entry.spec} has no training split. Take it out of `data`, or describe a copy that has one in "
            f"benchmarks.yaml: datasets: {{{name}: {{spec: ..., train_split: train}}}}"
        )
    train, test = (datasets.open_dataset(name, entry, split) for split in (entry.train_split, entry.split))
    return LabelledSet(name, train if entry.val_split else without_held_out(train, share)[0], test)


def without_held_out(train: Dataset, share: float) -> tuple[Dataset, Dataset | None]:
    """(the rest, the held-out samples): ``share`` of each class, the same ones for every checkpoint."""
    if share == 0 or train.labels is None or train.labels.ndim != 1:
        return train, None
    held = hold_out(train.labels, share)
    return Subset(train, np.flatnonzero(~held)), Subset(train, np.flatnonzero(held))


class LabelledStream:
    """Training images by their positions in a stream: ``loader.Samples``. Iteration t, which has the positions from
    t * ``batch_size`` on, is on data set t mod T.

    Each data set comes in passes of its own, shuffled anew and without repetition in a pass. What a batch holds,
    crops included, depends on the seed and the iteration alone, so a resumed run sees what an uninterrupted one sees,
    and so do several processes together.
    """

    context_length = 2

    def __init__(
        self, train: Sequence[tuple[Dataset, np.ndarray]], preprocessing: Preprocessing, recipe: Recipe, seed: int
    ) -> None:
        """``train`` has, per data set, the images and ``[n]`` the classifier's column for each."""
        self._train, self._seed, self._batch_size = list(train), seed, recipe.batch_size
        self._augment = augmentation(preprocessing, recipe)
        self.image_shape = (3, *preprocessing.size)
        self._orders: dict[int, tuple[int, np.ndarray]] = {}

    def batches(self, start: int, stop: int, rank: int, world_size: int, workers: int) -> Iterator[Batch]:
        """As of ``Corpus``: of each iteration the part that is this rank's, made by ``workers`` processes. ``tokens``
        are ``[n, 2]``: the iteration, and the image's column. Raises DataError for an image that cannot be read."""
        parts = loader.Parts(start, stop, self._batch_size, rank, world_size)
        return loader.decoded(self, parts, workers, 0.0, torch.cuda.is_available())

    def samples(self, start: int, stop: int) -> tuple[torch.Tensor, torch.Tensor, np.ndarray, Tally]:
        """Images, tokens and rows of positions of one iteration."""
        iteration, first = divmod(start, self._batch_size)
        dataset, columns = self._train[iteration % len(self._train)]
        rows = self.rows(start, stop)
        images = torch.stack([self._image(dataset, row, iteration, place) for place, row in enumerate(rows, first)])
        tokens = np.stack([np.full(len(rows), iteration), columns[rows]], axis=1)
        return images, torch.from_numpy(tokens), rows, Tally()

    def remote_units(self, parts: loader.Parts) -> Iterator[tuple[Source, Iterator[tuple[int, int]]]]:
        """None: data sets are on this machine when they have been opened."""
        return iter(())

    def rows(self, start: int, stop: int) -> np.ndarray:
        """``[stop - start]``: the rows of the iteration's data set at these positions."""
        turn, task = divmod(start // self._batch_size, len(self._train))
        first = turn * self._batch_size + start % self._batch_size
        number, place = np.divmod(np.arange(first, first + stop - start), len(self._train[task][0]))
        return np.concatenate([self._order(task, int(n))[place[number == n]] for n in np.unique(number)])

    def _order(self, task: int, number: int) -> np.ndarray:
        """The order of a data set's pass ``number``; the last one asked for is kept."""
        if task not in self._orders or self._orders[task][0] != number:
            order = np.random.default_rng([self._seed, task, number]).permutation(len(self._train[task][0]))
            self._orders[task] = number, order
        return self._orders[task][1]

    def _image(self, dataset: Dataset, row: int, iteration: int, place: int) -> torch.Tensor:
        image = dataset.image(int(row)).convert("RGB")
        seeds = np.random.SeedSequence([self._seed, iteration, place])
        with _drawing_from(int(seeds.generate_state(1, np.uint64)[0] >> np.uint64(1))):
            return cast(torch.Tensor, self._augment(image))


@contextmanager
def _drawing_from(seed: int) -> Iterator[None]:
    """The global generators at ``seed``, of which torchvision and timm draw, and afterwards as they were."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


def augmentation(preprocessing: Preprocessing, recipe: Recipe) -> transforms.Compose:
    """PIL image -> ``[3, H, W]`` uint8: random crop, then flip and RandAugment (arXiv 1909.13719) where asked for, with
    the settings of ``timm.data.create_transform``."""
    interpolation = transforms.InterpolationMode(preprocessing.interpolation)
    steps: list[Any] = [
        transforms.RandomResizedCrop(preprocessing.size, scale=recipe.crop, interpolation=interpolation)
    ]
    if recipe.flip:
        steps.append(transforms.RandomHorizontalFlip(recipe.flip))
    if recipe.randaugment:
        settings = {
            "translate_const": int(0.45 * min(preprocessing.size)),
            "img_mean": tuple(round(255 * value) for value in preprocessing.mean),
            "interpolation": str_to_pil_interp(preprocessing.interpolation),
        }
        steps.append(rand_augment_transform(recipe.randaugment, settings))
    return transforms.Compose([*steps, transforms.PILToTensor()])

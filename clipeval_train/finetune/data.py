"""Labelled data sets to fine-tune on, and the batches made of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torchvision import transforms

from clipeval import datasets
from clipeval.config import Config, DatasetEntry
from clipeval.datasets.base import Dataset
from clipeval.datasets.draws import hold_out
from clipeval.datasets.subset import Subset
from clipeval.errors import ClipevalError, DataError
from clipeval.models.base import Preprocessing
from clipeval_train.finetune.config import Recipe
from clipeval_train.signals import left_to_parent


@dataclass(frozen=True)
class LabelledSet:
    """One data set: what is trained on, what is scored, and what choices may be made on.

    ``selection`` is the validation split, or what was held out of the training split, or None.
    """

    name: str
    train: Dataset
    test: Dataset
    selection: Dataset | None = None

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
    if entry.val_split:
        return LabelledSet(name, train, test, datasets.open_dataset(name, entry, entry.val_split))
    kept, held = without_held_out(train, share)
    return LabelledSet(name, kept, test, held)


def without_held_out(train: Dataset, share: float) -> tuple[Dataset, Dataset | None]:
    """(the rest, the held-out samples): ``share`` of each class, the same ones for every checkpoint."""
    if share == 0 or train.labels is None or train.labels.ndim != 1:
        return train, None
    held = hold_out(train.labels, share)
    return Subset(train, np.flatnonzero(~held)), Subset(train, np.flatnonzero(held))


class Batches:
    """Training batches by iteration: a map-style set for torch's DataLoader. Iteration t is on data set t mod T.

    Each data set comes in passes of its own, shuffled anew and without repetition in a pass. What a batch holds,
    crops included, depends on the seed and the iteration alone, so a resumed run sees what an uninterrupted one sees;
    of ``world`` processes each takes its slice of the batch.
    """

    def __init__(
        self,
        train: Sequence[tuple[Dataset, np.ndarray]],
        preprocessing: Preprocessing,
        recipe: Recipe,
        seed: int,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        """``train`` has, per data set, the images and ``[n]`` the classifier's column for each."""
        self._train = list(train)
        self._augment = augmentation(preprocessing, recipe)
        self._seed = seed
        self._batch_size = recipe.batch_size
        self._share = slice(rank * recipe.batch_size // world, (rank + 1) * recipe.batch_size // world)
        self._orders: dict[int, tuple[int, np.ndarray]] = {}

    def __getitem__(self, iteration: int) -> tuple[int, torch.Tensor, torch.Tensor] | ClipevalError:
        """(data set, images ``[b, 3, H, W]`` uint8, columns ``[b]``); an error is returned, so that it crosses process
        borders unchanged."""
        task = iteration % len(self._train)
        rows = self.rows(iteration)
        dataset, columns = self._train[task]
        try:
            images = [self._image(dataset, row, iteration, place) for place, row in enumerate(rows, self._share.start)]
        except ClipevalError as error:
            return error
        return task, torch.stack(images), torch.from_numpy(columns[rows])

    def rows(self, iteration: int) -> np.ndarray:
        """``[b]``: the rows of the iteration's data set in this process's slice of the batch."""
        turn, task = divmod(iteration, len(self._train))
        positions = np.arange(turn * self._batch_size, (turn + 1) * self._batch_size)[self._share]
        number, place = np.divmod(positions, len(self._train[task][0]))
        return np.concatenate([self._order(task, int(n))[place[number == n]] for n in np.unique(number)])

    def _order(self, task: int, number: int) -> np.ndarray:
        """The order of a data set's pass ``number``; the last one asked for is kept."""
        if task not in self._orders or self._orders[task][0] != number:
            order = np.random.default_rng([self._seed, task, number]).permutation(len(self._train[task][0]))
            self._orders[task] = number, order
        return self._orders[task][1]

    def _image(self, dataset: Dataset, row: int, iteration: int, place: int) -> torch.Tensor:
        image = dataset.image(int(row)).convert("RGB")
        with torch.random.fork_rng(devices=[]):  # torchvision draws from the global generator
            seeds = np.random.SeedSequence([self._seed, iteration, place])
            torch.default_generator.manual_seed(int(seeds.generate_state(1, np.uint64)[0] >> np.uint64(1)))
            return cast(torch.Tensor, self._augment(image))


def augmentation(preprocessing: Preprocessing, recipe: Recipe) -> transforms.Compose:
    """PIL image -> ``[3, H, W]`` uint8: random crop, then flip and RandAugment (arXiv 1909.13719) where asked for."""
    interpolation = transforms.InterpolationMode(preprocessing.interpolation)
    steps: list[Any] = [
        transforms.RandomResizedCrop(preprocessing.size, scale=recipe.crop, interpolation=interpolation)
    ]
    if recipe.flip:
        steps.append(transforms.RandomHorizontalFlip(recipe.flip))
    if recipe.randaugment:
        fill = [round(255 * value) for value in preprocessing.mean]
        steps.append(transforms.RandAugment(*recipe.randaugment, fill=fill))
    return transforms.Compose([*steps, transforms.PILToTensor()])


def load(
    batches: Batches, start: int, stop: int, workers: int, device: torch.device
) -> Iterator[tuple[int, torch.Tensor, torch.Tensor]]:
    """The batches of iterations ``start`` to ``stop``, made by ``workers`` processes. Raises the first error met."""
    loader: Any = torch.utils.data.DataLoader(
        cast(Any, batches),
        batch_size=None,
        sampler=range(start, stop),
        num_workers=min(workers, stop - start),
        collate_fn=_unchanged,
        worker_init_fn=left_to_parent,
        pin_memory=device.type == "cuda",
    )
    for item in loader:
        if isinstance(item, ClipevalError):
            raise item
        yield item


def _unchanged(item: Any) -> Any:
    return item

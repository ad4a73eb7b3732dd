"""The data sets of a run: every split opened once, what identifies it, and what is to be said of it."""

from __future__ import annotations

from collections.abc import Sequence

from clipeval import datasets, identity
from clipeval.config import DatasetEntry
from clipeval.datasets.base import Dataset
from clipeval.datasets.contents import shared_images
from clipeval.errors import ClipevalError, DataError
from clipeval.evaluation.failures import attempt
from clipeval.identity import DatasetIdentity


class Shelf:
    """The data sets of a run, each split opened when first asked for. What cannot be opened is its error."""

    def __init__(self, entries: dict[str, DatasetEntry], offline: bool) -> None:
        self.entries = entries
        self.offline = offline
        self._splits: dict[tuple[str, str], Dataset | ClipevalError] = {}
        self._remarks: dict[tuple[str, str], tuple[str, ...]] = {}

    def open(self, name: str, split: str | None = None) -> Dataset | ClipevalError:
        """A split, by default the one that is scored."""
        key = name, split or self.entries[name].split
        if key not in self._splits:
            self._splits[key] = attempt(datasets.open_dataset, name, self.entries[name], split, offline=self.offline)
        return self._splits[key]

    def forget_errors(self, name: str) -> None:
        """Splits of a data set that could not be opened may be opened now."""
        wrong = [key for key, found in self._splits.items() if key[0] == name and isinstance(found, ClipevalError)]
        for key in wrong:
            del self._splits[key]

    def identity(self, name: str, trained: Sequence[str]) -> DatasetIdentity | ClipevalError:
        """What is read of a data set: the split that is scored, and those that are ``trained`` on."""
        scored = self.open(name)
        splits = [self.open(name, split) for split in trained]
        if broken := [found for found in (scored, *splits) if isinstance(found, ClipevalError)]:
            return broken[0]
        assert isinstance(scored, Dataset)
        training = [found for found in splits if isinstance(found, Dataset)]
        for split in training:
            require_same_classes(scored, split)
        return dataset_identity(scored, training)

    def remarks(self, name: str, split: str) -> tuple[str, ...]:
        """Sentences on a split, where it is open: those of one that is trained on name it, and count the scored images
        that are in it."""
        key = name, split
        if key not in self._remarks and isinstance(dataset := self._splits.get(key), Dataset):
            self._remarks[key] = dataset.remarks
            if split != self.entries[name].split:
                scored = self.open(name)
                both = shared_images(scored, dataset) if isinstance(scored, Dataset) else None
                said = [f"split '{split}': {sentence}" for sentence in dataset.remarks]
                self._remarks[key] = (*said, *([both] if both else []))
        return self._remarks.get(key, ())

    def opened(self) -> dict[tuple[str, str], Dataset]:
        """The splits that are open, by data set and name."""
        return {key: found for key, found in self._splits.items() if isinstance(found, Dataset)}


def require_same_classes(scored: Dataset, trained: Dataset) -> None:
    """Raises DataError where a label means another class in the split that is trained on."""
    ours, theirs = (split.prompts.classes if split.prompts else () for split in (scored, trained))
    if ours and theirs and ours != theirs:
        place = next((k for k, pair in enumerate(zip(ours, theirs, strict=False)) if len(set(pair)) > 1), None)
        differ = f"label {place} is '{ours[place]}' and '{theirs[place]}'" if place is not None else "of other lengths"
        raise DataError(
            f"{scored.name}: the splits '{scored.split}' and '{trained.split}' have different class lists: {differ}. "
            "Give both the same classes in the same order."
        )


def dataset_identity(scored: Dataset, trained: list[Dataset]) -> DatasetIdentity:
    """Of opened splits: what is scored, and what is trained on."""
    prompts = scored.prompts
    return DatasetIdentity(
        scored.fingerprint,
        identity.train_fingerprint([split.fingerprint for split in trained]),
        identity.prompts_digest(prompts.classes, prompts.wording) if prompts else None,
    )

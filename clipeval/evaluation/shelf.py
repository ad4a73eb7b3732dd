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
        self._offline = offline
        self._splits: dict[tuple[str, str], Dataset | ClipevalError] = {}

    def open(self, name: str, split: str | None = None) -> Dataset | ClipevalError:
        """A split, by default the one that is scored."""
        key = name, split or self.entries[name].split
        if key not in self._splits:
            self._splits[key] = attempt(datasets.open_dataset, name, self.entries[name], split, offline=self._offline)
        return self._splits[key]

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

    def remarks(self) -> dict[tuple[str, str], tuple[str, ...]]:
        """Sentences on every opened split: those of a split that is trained on name it, and count the scored images
        that are in it."""
        found = {}
        for (name, split), dataset in self._splits.items():
            if not isinstance(dataset, Dataset):
                continue
            if split == self.entries[name].split:
                found[name, split] = dataset.remarks
            else:
                scored = self.open(name)
                both = shared_images(scored, dataset) if isinstance(scored, Dataset) else None
                said = [f"split '{split}': {sentence}" for sentence in dataset.remarks]
                found[name, split] = (*said, *([both] if both else []))
        return found

    def trained_on(self) -> dict[tuple[str, str], Dataset]:
        """The opened splits that are not scored."""
        return {
            (name, split): found
            for (name, split), found in self._splits.items()
            if isinstance(found, Dataset) and split != self.entries[name].split
        }


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

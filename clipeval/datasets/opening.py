"""From a data set's entry to its contents, checked."""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import cast

import numpy as np

from clipeval.config import DatasetEntry
from clipeval.datasets.base import Dataset
from clipeval.datasets.captions import tidied
from clipeval.datasets.loaded import LoadedDataset
from clipeval.datasets.objectives import by_objective
from clipeval.datasets.selection import split_spec
from clipeval.errors import ClipevalError, DataError, UsageError, few
from clipeval.paths import readable
from clipeval.remote.origin import public

ADAPTERS = {
    "wds": "clipeval.datasets.adapters.wds:open_wds",
    "hf": "clipeval.datasets.adapters.hf:open_hf",
    "folder": "clipeval.datasets.adapters.folder:open_folder",
    "clip_benchmark": "clipeval.datasets.adapters.clip_benchmark:open_clip_benchmark",
    "builtin": "clipeval.datasets.adapters.builtin:open_builtin",
}
"""Scheme -> module:function(name, reference, split, entry, offline), imported when first used."""
_OF_PACKAGES = "clipeval.datasets.adapters.extension:open_extension"

_KEYS_OF_SPECS = {
    "revision": ("hf:", "wds:", "clip_benchmark:"),
    "image_key": ("hf:",),
    "label_key": ("hf:",),
    "caption_key": ("hf:",),
    "choice_keys": ("hf:",),
    "metadata": ("wds:", "clip_benchmark:wds/"),
}
"""Keys of an entry -> the beginnings of the specs that they mean something for."""

Adapter = Callable[[str, str, str, DatasetEntry, bool], LoadedDataset]
_CONTENTS = ("labels", "prompts", "captions", "choices", "cues")
_SPLITS = frozenset({"train", "training", "test", "testing", "val", "valid", "validation", "dev", "eval"})


def open_dataset(name: str, entry: DatasetEntry, split: str | None = None, *, offline: bool = False) -> Dataset:
    """Open one split of a data set (None: ``entry.split``) and check that it is what it says.

    Raises DataError when data is missing (offline: not on this machine), empty or broken, when the number of samples is
    not ``entry.n`` or the content not that of ``entry.fingerprint``, when ids repeat, when class list and labels
    disagree, classes are called as splits, or an image has no caption; UsageError for a spec that cannot be read and a
    key of the entry that would have no effect. No message holds a secret of a URL.
    """
    try:
        found = _adapted(name, entry, split or entry.split, offline)
        _check_size(found, entry)
        _check_ids(found)
        _check_classes(found, entry)
        _check_objectives(found)
        _check_labels(found)
        dataset = tidied(found)
        _check_count(_rows(found), dataset, entry)
        _check_content(dataset, entry)
    except ClipevalError as error:
        raise type(error)(public(str(error))) from error
    except OSError as error:
        where = readable(public(str(error.filename or entry.spec)))
        raise DataError(f"{name}: cannot read {where:.300}: {error.strerror or error}.") from error
    return replace(dataset, remarks=(*dataset.remarks, *_odd_classes(dataset)))


def _adapted(name: str, entry: DatasetEntry, split: str, offline: bool) -> LoadedDataset:
    if entry.unavailable:
        raise DataError(f"{name} cannot be measured: {entry.unavailable.rstrip('.')}.")
    scheme, reference = split_spec(entry.spec)
    if "\0" in split:
        raise UsageError(f"{name}: '{split:.80}' is no name of a split.")
    _check_keys(name, scheme, entry)
    module, _, function = ADAPTERS.get(scheme, _OF_PACKAGES).partition(":")
    adapter = cast(Adapter, getattr(importlib.import_module(module), function))
    return adapter(name, reference, split, entry, offline)


def capabilities(dataset: Dataset) -> set[str]:
    """Which of labels, prompts, captions, choices and cues a data set has. Labels of faces are metadata."""
    found = {name for name in _CONTENTS if getattr(dataset, name) is not None}
    return found | ({"labels"} if by_objective(dataset.prompts) else set())


def _check_keys(name: str, scheme: str, entry: DatasetEntry) -> None:
    """A key that would have no effect is an error."""
    for key, beginnings in _KEYS_OF_SPECS.items():
        if getattr(entry, key) is not None and not entry.spec.startswith(beginnings):
            raise UsageError(
                f"benchmarks.yaml: datasets.{name}.{key}: means nothing for {scheme}: data sets, "
                f"only for {', '.join(beginnings)}"
            )


def _check_size(dataset: Dataset, entry: DatasetEntry) -> None:
    if len(dataset) == 0:
        why = f" ({'; '.join(dataset.remarks)})" if dataset.remarks else ""
        raise DataError(f"{dataset.name}: the split '{dataset.split}' of {entry.spec} is empty{why}.")


def _rows(dataset: Dataset) -> int:
    """The rows that were read: of sets for association they hold several images each."""
    items = dataset.groups if dataset.cues is not None else None
    return len(dataset) if items is None else len(np.unique(items))


def _check_count(rows: int, dataset: Dataset, entry: DatasetEntry) -> None:
    """``rows`` were read, some of them perhaps of the same image."""
    found = _rows(dataset)
    if dataset.split == entry.split and entry.n not in (None, rows, found):
        assert entry.n is not None
        reason = (
            "a download or export was cut short" if found < entry.n else "this is another version, or several splits"
        )
        raise DataError(
            f"{dataset.name}: found {found:,} samples in {entry.spec}, split '{dataset.split}', expected {entry.n:,}: "
            f"probably {reason}. Where {found:,} is right, set n: {found} in benchmarks.yaml."
        )


def _check_content(dataset: Dataset, entry: DatasetEntry) -> None:
    if dataset.split == entry.split and entry.fingerprint not in (None, dataset.fingerprint):
        raise DataError(
            f"{dataset.name}: the content of {entry.spec}, split '{dataset.split}', is not the known one: its "
            f"fingerprint is {dataset.fingerprint}, expected {entry.fingerprint}. Where what is here is right, set "
            f"fingerprint: {dataset.fingerprint} in benchmarks.yaml."
        )


def _check_ids(dataset: Dataset) -> None:
    if len(set(dataset.ids)) < len(dataset):
        twice = Counter(dataset.ids).most_common(1)[0]
        raise DataError(f"{dataset.name}: {twice[1]} samples have the id '{twice[0]}'; ids must be unique.")


def _check_labels(dataset: Dataset) -> None:
    labels, prompts = dataset.labels, dataset.prompts
    if labels is None or prompts is None:
        return
    count = len(prompts.classes)
    if labels.ndim == 2 and labels.shape[1] != count:
        found = f"labels are for {labels.shape[1]} classes"
    elif labels.ndim == 1 and (labels.min() < 0 or labels.max() >= count):
        wrong = int(((labels < 0) | (labels >= count)).argmax())
        found = f"sample {dataset.ids[wrong]} has the label {labels[wrong]}"
    else:
        return
    raise DataError(
        f"{dataset.name}: class list and labels disagree: {found}, the class list '{prompts.name}' has {count} names "
        f"(labels 0 to {count - 1})."
    )


def _check_objectives(dataset: Dataset) -> None:
    try:
        by_objective(dataset.prompts)
    except DataError as error:
        raise DataError(f"{dataset.name}: {error}") from error


def _check_classes(dataset: Dataset, entry: DatasetEntry) -> None:
    """Splits taken for classes, and a language that changes nothing."""
    if dataset.prompts is None:
        chooses_captions = entry.spec.startswith("clip_benchmark:") and not entry.spec.startswith("clip_benchmark:wds/")
        if entry.language != "en" and not chooses_captions:
            raise UsageError(
                f"benchmarks.yaml: datasets.{dataset.name}.language: means nothing here: there are no class names."
            )
        return
    splits = _SPLITS | {dataset.split, entry.split, entry.train_split, entry.val_split}
    if dataset.prompts.classes and set(dataset.prompts.classes) <= splits:
        raise DataError(
            f"{dataset.name}: its classes are called {few(map(repr, dataset.prompts.classes))}, as splits are: the "
            "images lie in no class folders. Layout: SPLIT/CLASS/*.jpg"
        )


def _odd_classes(dataset: Dataset) -> Iterator[str]:
    names = dataset.prompts.classes if dataset.prompts else ()
    if len(names) == 1 and dataset.labels is not None and dataset.labels.ndim == 1:
        yield f"there is one class only, {names[0]!r:.100}: every answer is right"
    counts = Counter(names)
    if twice := [repr(name) for name, count in counts.items() if count > 1]:
        yield f"{len(twice)} class names stand more than once ({few(twice)}): only the first of equal names can win"

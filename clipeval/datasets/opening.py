"""From a data set's entry to its contents, checked."""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Callable
from typing import cast

from clipeval.config import DatasetEntry
from clipeval.datasets.base import Dataset
from clipeval.datasets.selection import split_spec
from clipeval.errors import ClipevalError, DataError, UsageError
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

_KEYS_OF_SCHEMES = {
    "revision": ("hf", "wds", "clip_benchmark"),
    "image_key": ("hf",),
    "label_key": ("hf",),
    "caption_key": ("hf",),
}

Adapter = Callable[[str, str, str, DatasetEntry, bool], Dataset]


def open_dataset(name: str, entry: DatasetEntry, split: str | None = None, *, offline: bool = False) -> Dataset:
    """Open one split of a data set (None: ``entry.split``) and check that it is what it says.

    Raises DataError when data is missing (offline: not on this machine), empty or broken, when the number of samples is
    not ``entry.n`` or the content not that of ``entry.fingerprint``, when ids repeat, when class list and labels
    disagree, or an image has no caption; UsageError for a spec that cannot be read and a key of the entry that would
    have no effect. No message holds a secret of a URL.
    """
    try:
        dataset = _adapted(name, entry, split or entry.split, offline)
        _check_size(dataset, entry)
        _check_content(dataset, entry)
        _check_ids(dataset)
        _check_labels(dataset)
        _check_captions(dataset)
    except ClipevalError as error:
        raise type(error)(public(str(error))) from error
    except OSError as error:
        where = readable(public(str(error.filename or entry.spec)))
        raise DataError(f"{name}: cannot read {where:.300}: {error.strerror or error}.") from error
    return dataset


def _adapted(name: str, entry: DatasetEntry, split: str, offline: bool) -> Dataset:
    scheme, reference = split_spec(entry.spec)
    if "\0" in split:
        raise UsageError(f"{name}: '{split:.80}' is no name of a split.")
    _check_keys(name, scheme, entry)
    module, _, function = ADAPTERS[scheme].partition(":")
    adapter = cast(Adapter, getattr(importlib.import_module(module), function))
    return adapter(name, reference, split, entry, offline)


def capabilities(dataset: Dataset) -> set[str]:
    """Which of ``labels``, ``prompts``, ``captions`` and ``choices`` a data set has."""
    return {name for name in ("labels", "prompts", "captions", "choices") if getattr(dataset, name) is not None}


def _check_keys(name: str, scheme: str, entry: DatasetEntry) -> None:
    """A key that would have no effect is an error."""
    for key, schemes in _KEYS_OF_SCHEMES.items():
        if getattr(entry, key) is not None and scheme not in schemes:
            raise UsageError(
                f"benchmarks.yaml: datasets.{name}.{key}: means nothing for {scheme}: data sets, "
                f"only for {', '.join(f'{scheme}:' for scheme in schemes)}"
            )


def _check_size(dataset: Dataset, entry: DatasetEntry) -> None:
    found = len(dataset)
    if found == 0:
        raise DataError(f"{dataset.name}: the split '{dataset.split}' of {entry.spec} is empty.")
    if dataset.split == entry.split and entry.n is not None and found != entry.n:
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


def _check_captions(dataset: Dataset) -> None:
    for texts, what in ((dataset.captions, "caption"), (dataset.choices, "candidate captions")):
        for sample, candidates in zip(dataset.ids, texts or (), strict=texts is not None):
            if not candidates:
                raise DataError(f"{dataset.name}: sample {sample} has no {what}.")

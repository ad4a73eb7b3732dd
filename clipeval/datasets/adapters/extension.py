"""``KIND:REFERENCE``: data sets of other packages, by entry points of the group ``clipeval.datasets``."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import numpy as np

from clipeval import digest, extensions
from clipeval.config import DatasetEntry
from clipeval.datasets import labels as values
from clipeval.datasets.images import TooLarge, Unscaled, check_size, rgb
from clipeval.datasets.loaded import LoadedDataset
from clipeval.datasets.prompts import load_prompts
from clipeval.errors import DataError, first_line
from clipeval.extensions import Extension, at_work

if TYPE_CHECKING:
    from PIL import Image

_OPTIONAL = ("labels", "classes", "templates", "captions", "metadata")


def open_extension(name: str, reference: str, split: str, entry: DatasetEntry, offline: bool) -> LoadedDataset:
    """What the function of another package gives for (REFERENCE, split): an object with ``ids`` (n texts),
    ``fingerprint`` (a text that changes with the content) and ``image(i)`` (a PIL image), and what it has of

    - ``labels``: n whole numbers, or n lists of 0 and 1 per class;
    - ``classes``: the names of the labels, and ``templates``: prompts with ``{c}`` in place of a name;
    - ``captions``: n lists of texts, or n texts;
    - ``metadata``: field -> n whole numbers.

    Raises DataError that names the package, for whatever the function raises and for what does not fit.
    """
    extension = extensions.named("clipeval.datasets")[entry.spec.partition(":")[0]]
    source = _Source(name, extension, reference, split)
    with source.raising():
        found = {key: getattr(source.opened, key, None) for key in _OPTIONAL}
    ids, fingerprint = source.identified()
    labels = _labels(source, ids, found["labels"])
    captions = _captions(source, ids, found["captions"])
    metadata = _metadata(source, ids, found["metadata"])
    classes, templates = (_texts(source, key, found[key]) for key in ("classes", "templates"))
    prompts = None
    if labels is None and (classes or templates):
        raise source.wrong("classes and templates mean nothing without labels")
    if labels is not None:
        prompts = load_prompts(name, entry.prompts, entry.language, classes, templates)
    labelled = None if labels is None else labels.astype(int).tolist()
    of_metadata = {key: column.tolist() for key, column in metadata.items()} if metadata else None
    return LoadedDataset(
        name=name,
        split=split,
        fingerprint=digest.of_value([fingerprint, split, ids, labelled, captions, of_metadata]),
        ids=ids,
        read=source,
        labels=labels,
        prompts=prompts,
        captions=captions,
        metadata=metadata,
    )


class _Source:
    """The object of another package, and its images. Another process opens its own: files that are open here, and the
    places in them, would be shared with it."""

    def __init__(self, name: str, extension: Extension, reference: str, split: str) -> None:
        self._name, self._extension = name, extension
        self._reference, self._split = reference, split
        self._identity: tuple[list[str], str] | None = None
        self._process, self._opened = 0, None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_process": 0, "_opened": None}

    def __call__(self, index: int) -> Image.Image:
        from PIL import Image

        opened, sample = self.opened, f"sample {self.identified()[0][index]}: "
        with self.raising(sample):
            image = opened.image(index)
            if not isinstance(image, Image.Image):
                raise self.wrong(f"{sample}image() gave {type(image).__name__}, not a PIL image")
            check_size(image)
            return rgb(image)

    @property
    def opened(self) -> Any:
        """The object, of this process. Raises DataError."""
        if self._process != os.getpid():
            with self.raising():
                self._opened = self._extension.function(DataError)(self._reference, self._split)
            self._process = os.getpid()
            if self._identity is not None and self._identity != self._read_identity():
                raise self.wrong("ids or fingerprint are not the same when it is opened again")
        return self._opened

    def identified(self) -> tuple[list[str], str]:
        """Its ids and fingerprint. Raises DataError."""
        if self._identity is None:
            self._identity = self._read_identity()
        return self._identity

    def _read_identity(self) -> tuple[list[str], str]:
        with self.raising():
            ids, fingerprint = list(self.opened.ids), self.opened.fingerprint
        if wrong := [one for one in ids if not isinstance(one, str) or not one.isprintable() or not one]:
            raise self.wrong(f"{wrong[0]!r:.80} is no id: ids are texts without control characters")
        if not isinstance(fingerprint, str) or not fingerprint:
            raise self.wrong("fingerprint is not a text that changes with the content")
        return ids, fingerprint

    def raising(self, where: str = "") -> AbstractContextManager[None]:
        """What the package raises becomes a DataError that names it."""
        return at_work(lambda error: self.wrong(f"{where}{_said(error):.300}"))

    def wrong(self, what: str) -> DataError:
        """A message on what the package gave."""
        who = f"{self._extension.name}: of {self._extension.package}"
        return DataError(f"{self._name}: {who}: {what.rstrip('.')}.")


def _said(error: Exception) -> str:
    return str(error) if isinstance(error, TooLarge | Unscaled) else f"{type(error).__name__}: {first_line(error)}"


def _counted(source: _Source, ids: Sequence[str], key: str, found: Any) -> list[Any]:
    with source.raising(f"{key}: "):
        listed = list(found)
    if isinstance(found, str | Mapping) or len(listed) != len(ids):
        raise source.wrong(f"{key}: {len(listed):,} for {len(ids):,} samples")
    return listed


def _labels(source: _Source, ids: Sequence[str], found: Any) -> np.ndarray | None:
    if found is None:
        return None
    listed = _counted(source, ids, "labels", found.tolist() if isinstance(found, np.ndarray) else found)

    def where(index: int) -> str:
        return str(source.wrong(f"sample {ids[index]}")).rstrip(".")

    several = [isinstance(label, list | tuple) for label in listed]
    if any(several) and not all(several):
        raise source.wrong(f"sample {ids[several.index(False)]} has one label, and others have a list of them")
    return (values.zero_or_one if any(several) else values.whole_numbers)(listed, where)


def _captions(source: _Source, ids: Sequence[str], found: Any) -> list[tuple[str, ...]] | None:
    if found is None:
        return None
    listed = _counted(source, ids, "captions", found)
    captions = []
    for sample, one in zip(ids, listed, strict=True):
        texts = (one,) if isinstance(one, str) else tuple(one) if isinstance(one, list | tuple) else ()
        if not texts or not all(isinstance(text, str) for text in texts):
            raise source.wrong(f"sample {sample}: captions: {one!r:.80} is no list of texts")
        captions.append(texts)
    return captions


def _metadata(source: _Source, ids: Sequence[str], found: Any) -> dict[str, np.ndarray] | None:
    if found is None:
        return None
    if not isinstance(found, Mapping) or not all(isinstance(key, str) for key in found):
        raise source.wrong("metadata is no mapping of fields to numbers")
    columns = {}
    for key, column in found.items():
        listed = _counted(source, ids, f"metadata '{key:.80}'", column)
        if wrong := [value for value in listed if not isinstance(value, int | np.integer | np.bool_)]:
            raise source.wrong(f"metadata '{key:.80}': {wrong[0]!r:.80} is no whole number")
        columns[key] = np.array([int(value) for value in listed], dtype=np.int64)
    return columns


def _texts(source: _Source, key: str, found: Any) -> list[str] | None:
    if found is None:
        return None
    with source.raising(f"{key}: "):
        listed = list(found)
    if isinstance(found, str) or not listed or not all(isinstance(text, str) for text in listed):
        raise source.wrong(f"{key}: {found!r:.80} is no list of texts")
    return listed

"""Pictures, captions and class names of the samples that the page shows, from the data sets on this machine."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from clipeval.config import Config
from clipeval.errors import ClipevalError, DataError

if TYPE_CHECKING:
    from PIL import Image

    from clipeval.datasets.base import Dataset

_SIDE = 112
"""Pixels of a picture's longer side."""


class Libraries:
    """The data sets of one configuration, each opened once."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._known: dict[tuple[str, str], Library | DataError] = {}

    def get(self, name: str, fingerprint: str) -> Library:
        """A data set with the contents that were measured. Raises DataError that says what is missing."""
        key = (name, fingerprint)
        if key not in self._known:
            try:
                self._known[key] = Library(_open(name, fingerprint, self._config))
            except ClipevalError as error:
                self._known[key] = DataError(str(error))
        found = self._known[key]
        if isinstance(found, DataError):
            raise found
        return found


class Library:
    """What one data set knows of its samples. A caption's id is the image's, ``#`` and a number."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        self._index = {sample: i for i, sample in enumerate(dataset.ids)}
        self._known: dict[str, str] = {}

    def words(self, sample: str) -> str:
        """The caption of this id, or the class of the image; empty where neither is known."""
        image, mark, number = sample.rpartition("#")
        if mark and image in self._index and number.isdigit():
            return self.caption(image, int(number))
        labels, prompts = self._dataset.labels, self._dataset.prompts
        if labels is None or prompts is None or labels.ndim > 1 or sample not in self._index:
            return ""
        return prompts.classes[int(labels[self._index[sample]])]

    def picture_of(self, sample: str) -> str:
        """The image of a sample or of a caption's id as a data URI; empty where there is none."""
        image = sample if sample in self._index else sample.rpartition("#")[0]
        return self.thumbnail(image) if image in self._index else ""

    def caption(self, image: str, number: int) -> str:
        """A caption of an image."""
        captions: Sequence[tuple[str, ...]] = self._dataset.captions or ()
        return captions[self._index[image]][number]

    def thumbnail(self, image: str) -> str:
        """The image as a data URI; empty where it cannot be read."""
        if image not in self._known:
            self._known[image] = self._read(self._index[image])
        return self._known[image]

    def _read(self, index: int) -> str:
        try:
            return _data_uri(self._dataset.image(index))
        except ClipevalError:
            return ""


def _open(name: str, fingerprint: str, config: Config) -> Dataset:
    """The data set as it was measured, from what is on this machine. Raises DataError."""
    from clipeval.datasets import open_dataset

    entry = config.dataset(name)
    if entry is None:
        raise DataError(f"{name}: no data set of {config.path} has this name, so its captions cannot be read. Add it.")
    dataset = open_dataset(name, entry, offline=True)
    if dataset.fingerprint != fingerprint:
        raise DataError(f"{name}: its contents here differ from those that were measured.")
    return dataset


def _data_uri(image: Image.Image) -> str:
    """A smaller copy, as PNG or JPEG, whichever is shorter: drawings are PNG, photographs JPEG."""
    from PIL.Image import Resampling

    image.thumbnail((_SIDE, _SIDE), Resampling.LANCZOS)  # a smaller one stays as it is
    kinds = {"png": _encoded(image, "PNG", optimize=True), "jpeg": _encoded(image, "JPEG", quality=82)}
    if max(image.size) <= 48:
        del kinds["jpeg"]  # its blocks blur icons
    kind = min(kinds, key=lambda kind: len(kinds[kind]))
    return f"data:image/{kind};base64,{base64.b64encode(kinds[kind]).decode()}"


def _encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()

"""What a downstream data set is to the rest of clipeval: samples by index, with stable ids and a fingerprint."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True)
class Prompts:
    """Class names and prompt templates of a zero-shot classifier.

    A template holds ``{c}``, which is replaced by the class name; where there are none, ``written`` holds the prompts
    of each class as they are. ``name`` tells prompt sets apart in the results (``default``, ``clip_benchmark``, or a
    file's name).
    """

    name: str
    classes: tuple[str, ...]
    templates: tuple[str, ...]
    written: tuple[tuple[str, ...], ...] = ()

    @property
    def wording(self) -> tuple[str | tuple[str, ...], ...]:
        """What makes prompts of class names: the templates, or the written prompts."""
        return self.templates or self.written

    def texts(self) -> list[list[str]]:
        """The prompts, one list per class."""
        if self.written:
            return [list(prompts) for prompts in self.written]
        return [[template.format(c=name) for template in self.templates] for name in self.classes]


class Dataset(ABC):
    """One split of a downstream data set.

    Attributes:
        name: the name used in results, CLIP_benchmark's where it has one (``vtab/pets``).
        split: the split's name (``test``, ``train``).
        fingerprint: hex digest of content: images, labels, captions and their order. Not of paths or times.
        ids: one stable, unique id per sample; the same sample has the same id on every machine.
        labels: ``[n]`` int64 class indices, ``[n, K]`` bool for multi-label sets, or None.
        prompts: class names and templates, or None. ``len(prompts.classes)`` is K.
        captions: one tuple of captions per image (retrieval), or None.
        choices: for image-caption selection (SugarCrepe, Winoground): per image the candidate captions, the true
            one first; or None.
        cues: for association (WinoGAViL): per image the cue of its item; or None.
        associated: with ``cues``, ``[n]`` bool, whether the image is an association of the cue.
        groups: with ``choices`` and ``cues``, the item each image belongs to (Winoground's hold two images); or None.
        revision: the commit of the hub's repository that it was read from; empty for what is of none.
        digests: one hex digest per image's bytes, or None where images are not files.
        metadata: per field ``[n]`` int64, what else is known of the images (WILDS's region), or None.
        remarks: sentences on what was left out or changed when the data was read. They decide nothing.
    """

    name: str
    split: str
    fingerprint: str
    ids: Sequence[str]
    labels: np.ndarray | None = None
    prompts: Prompts | None = None
    captions: Sequence[tuple[str, ...]] | None = None
    choices: Sequence[tuple[str, ...]] | None = None
    cues: Sequence[str] | None = None
    associated: np.ndarray | None = None
    groups: np.ndarray | None = None
    revision: str = ""
    digests: Sequence[str] | None = None
    metadata: Mapping[str, np.ndarray] | None = None
    remarks: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    @abstractmethod
    def image(self, index: int) -> Image.Image:
        """Decode one image. Raises DataError that names the sample when it is missing, corrupt or truncated."""

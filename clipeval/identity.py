"""What decides a value, under one name: the identity of a checkpoint, that of a data set, and the keys made of them.

Cell ids, embedding keys and pixel keys are made here, of identities, task, parameters and precision, and of nothing
else. What only describes a checkpoint (source, samples seen, parameters, GMACs) is in none of them: it is kept once per
checkpoint and joined to rows when a table is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Any

from clipeval import digest

_DECODERS = ("Pillow", "torchvision", "numpy")
"""The packages that turn image files into pixels."""


@dataclass(frozen=True)
class CheckpointIdentity:
    """What decides the embeddings of a checkpoint at one precision. Every field is a digest, but for ``encoder``.

    ``weights`` is the SHA-256 of the weights file; ``model`` of the architecture's or the file's own configuration;
    ``preprocessing`` of resize, crop and normalisation; ``tokenizer`` of its kind, its settings and the content of its
    files; ``encoder`` names the code that embeds, clipeval's and the library's, with their versions.
    """

    weights: str
    model: str
    preprocessing: str
    tokenizer: str
    encoder: str

    @property
    def digest(self) -> str:
        """All of it in one hex digest."""
        return digest.of_value(asdict(self))

    def image_key(self, precision: str) -> dict[str, Any]:
        """What decides image embeddings, as JSON values."""
        return self._key(("weights", "model", "preprocessing", "encoder"), precision)

    def text_key(self, precision: str) -> dict[str, Any]:
        """What decides text embeddings, as JSON values."""
        return self._key(("weights", "model", "tokenizer", "encoder"), precision)

    def _key(self, names: Sequence[str], precision: str) -> dict[str, Any]:
        return {name: getattr(self, name) for name in names} | {"precision": precision}


@dataclass(frozen=True)
class DatasetIdentity:
    """What a task reads of a data set: ``fingerprint`` of the samples that are scored, ``train`` of the splits that are
    trained on (None: none), ``prompts`` of class names and templates (None: there are none)."""

    fingerprint: str
    train: str | None = None
    prompts: str | None = None


@dataclass(frozen=True)
class Measure:
    """How a checkpoint is measured on a data set: a task with its version and parameters, and the precision."""

    task: str
    version: int | str
    shots: int | None
    seed: int
    protocol: str
    limit: int | None
    precision: str
    metric: str = ""
    """What the data set's ``main_metric`` asks for beyond what the task always gives; empty where it does not."""


_LATER = ("metric",)
"""Fields that ids of earlier versions do not have."""


def cell_id(checkpoint: CheckpointIdentity, dataset: DatasetIdentity, measure: Measure) -> str:
    """32 hex digits: two cells of the same id have the same values."""
    return digest.of_value([_parts(checkpoint), _parts(dataset), _parts(measure)])[:32]


def unidentified_cell_id(
    names: Sequence[str | None],
    checkpoint: CheckpointIdentity | None,
    dataset: DatasetIdentity | None,
    measure: Measure,
) -> str:
    """The id of a cell that cannot be measured because its checkpoint or its data are unknown; ``names`` stand for what
    is not known. It is never that of a measured cell."""
    known = [None if part is None else _parts(part) for part in (checkpoint, dataset)]
    return digest.of_value(["unidentified", list(names), *known, _parts(measure)])[:32]


def _parts(part: CheckpointIdentity | DatasetIdentity | Measure) -> dict[str, Any]:
    """The fields by name, those that came later only where they say something: else ids are what they were before."""
    return {name: value for name, value in vars(part).items() if value != "" or name not in _LATER}


def prompts_digest(classes: Sequence[str], wording: Sequence[str | Sequence[str]]) -> str:
    """The digest of class names and templates, or the prompts of each class, in their order."""
    return digest.of_value([list(classes), list(wording)])


def train_fingerprint(fingerprints: Sequence[str]) -> str | None:
    """One digest of the fingerprints of all splits that are trained on, in the order train, validation."""
    return digest.of_value(list(fingerprints)) if fingerprints else None


def pixel_key(spatial: dict[str, Any]) -> dict[str, Any]:
    """What decides the uint8 pixels of an image: resize and crop (``spatial``), and what decodes and resizes."""
    return {"preprocessing": spatial, "decoders": {name: metadata.version(name) for name in _DECODERS}}

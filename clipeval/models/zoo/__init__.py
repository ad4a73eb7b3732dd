"""The public zoo: what is known of open_clip's architectures and checkpoints, read from two shipped tables.

``architectures.csv`` and ``pretrained.csv`` are written by ``python -m clipeval.models.zoo.build``. Reading them needs
neither torch nor open_clip nor a network.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from functools import cache
from importlib import resources
from typing import Any

from clipeval.models.base import ModelInfo

CHERTI2023_FILES = "hf://laion/scaling-laws-openclip/"
_CHERTI2023_OPENAI = ("ViT-B-32-quickgelu", "ViT-B-16-quickgelu", "ViT-L-14-quickgelu")


@dataclass(frozen=True)
class Architecture:
    """One open_clip architecture. Units as in ModelInfo; ``open_clip`` is the version it was read from."""

    arch: str
    params: float
    params_image: float
    params_text: float
    gmacs: float
    gmacs_image: float
    gmacs_text: float
    image_size: float
    quick_gelu: bool
    gmacs_from: str
    open_clip: str


@dataclass(frozen=True, kw_only=True)
class Training:
    """What a checkpoint was trained on, in the names and units of ModelInfo; ``from_scratch_filter`` says why a law of
    training from scratch leaves it out, empty where it does not."""

    source: str
    source_family: str
    unique_samples: float
    samples_seen: float
    samples_seen_from: str
    from_scratch_filter: str


@dataclass(frozen=True, kw_only=True)
class Checkpoint(Training):
    """One public checkpoint: a tag of open_clip, or a file on the Hugging Face hub (``hf://ORG/REPO/FILE``).

    ``hub`` is ``ORG/REPO/FILE`` or, where the file has open_clip's standard name, ``ORG/REPO/``. ``preprocess_of``
    names the tag of the same weights whose preprocessing applies.
    """

    arch: str
    pretrained: str
    quick_gelu: bool
    hub: str
    preprocess_of: str
    note: str
    reference: str

    @property
    def name(self) -> str:
        """The MODEL spec, which is also its name in the results table."""
        return f"{self.arch},{self.pretrained}"

    @property
    def activation_matches(self) -> bool:
        """False where open_clip offers the weights under an architecture with the wrong activation."""
        return self.quick_gelu == architectures()[self.arch].quick_gelu


ZOOS: dict[str, Callable[[Checkpoint], bool]] = {
    "open_clip": lambda row: not row.pretrained.startswith("hf://"),
    "openai": lambda row: row.pretrained == "openai",
    "laion": lambda row: row.source.startswith("LAION") and not row.pretrained.startswith("hf://"),
    "datacomp": lambda row: row.source_family == "DataComp" or row.source_family.startswith("CommonPool"),
    "cherti2023": lambda row: (
        row.pretrained.startswith(CHERTI2023_FILES) or (row.arch in _CHERTI2023_OPENAI and row.pretrained == "openai")
    ),
}
TRANSFORMERS = "transformers"
NAMES = (*ZOOS, TRANSFORMERS)
"""The zoos that come with clipeval. ``laion`` and ``datacomp`` are chosen by pre-training data, whoever trained."""


@cache
def architectures() -> dict[str, Architecture]:
    """All architectures of open_clip by name, with or without public checkpoints."""
    return {row["arch"]: Architecture(**_typed(row, Architecture)) for row in _read("architectures.csv")}


@cache
def checkpoints() -> dict[tuple[str, str], Checkpoint]:
    """All public checkpoints by (architecture, tag or ``hf://`` address)."""
    rows = (Checkpoint(**_typed(row, Checkpoint)) for row in _read("pretrained.csv"))
    return {(row.arch, row.pretrained): row for row in rows}


@dataclass(frozen=True, kw_only=True)
class HubModel(Training):
    """One public checkpoint of transformers: a ``repository`` of the hub. Of weights that open_clip has, too, ``arch``
    and ``pretrained`` name its line there; of others the facts are here."""

    repository: str
    arch: str
    pretrained: str
    note: str
    reference: str


@cache
def repositories() -> dict[str, HubModel]:
    """The public checkpoints of transformers by repository: the zoo ``transformers``."""
    return {row["repository"]: HubModel(**_typed(row, HubModel)) for row in _read("transformers.csv")}


def info_of_repository(row: HubModel) -> ModelInfo:
    """What the tables know of a public checkpoint of transformers, under its own name."""
    same = checkpoints().get((row.arch, row.pretrained))
    spec = f"{TRANSFORMERS}:{row.repository}"
    return _trained(info_of_architecture(row.arch), spec, spec, same or row)


def _trained(of_architecture: ModelInfo, model: str, pretrained: str, training: Training) -> ModelInfo:
    facts = {field.name: getattr(training, field.name) for field in fields(Training)}
    found = replace(of_architecture, model=model, pretrained=pretrained, **facts)
    return replace(found, gmacs_total=found.gmacs * found.samples_seen)


@cache
def _families() -> dict[str, str]:
    return {row.source: row.source_family for row in (*checkpoints().values(), *repositories().values())}


def family(source: str) -> str:
    """The family of an upstream data set: that of public checkpoints trained on it (LAION of LAION-80M), or itself."""
    return _families().get(source, source)


def members(zoo: str) -> list[Checkpoint]:
    """The checkpoints of one of ``ZOOS``.

    open_clip offers some weights under two architectures that differ in the activation; only the one they were trained
    with is a member.
    """
    return [row for row in checkpoints().values() if ZOOS[zoo](row) and row.activation_matches]


def tags(arch: str) -> list[str]:
    """open_clip's tags of an architecture."""
    return [tag for name, tag in checkpoints() if name == arch and not tag.startswith("hf://")]


def by_hub(repository: str) -> Checkpoint | None:
    """The tag whose weights are the standard file of a hub repository ``ORG/NAME``, or None."""
    found = [row for row in checkpoints().values() if row.hub == f"{repository}/" and row.activation_matches]
    return found[0] if found else None


def by_file_name(arch: str, file_name: str) -> Checkpoint | None:
    """The paper's checkpoint that was published under this file name, or None. A name proves nothing: a hint only."""
    return checkpoints().get((arch, CHERTI2023_FILES + file_name))


def clean_tag(tag: str) -> str:
    """open_clip's spelling of a tag: lower case, ``_`` for ``-``."""
    return tag.lower().replace("-", "_")


def info_of_architecture(arch: str) -> ModelInfo:
    """What an architecture says of any checkpoint of it; all else is unknown."""
    row = architectures().get(arch)
    if row is None:
        return ModelInfo("", arch=arch)
    sizes = ("params", "params_image", "params_text", "gmacs", "gmacs_image", "gmacs_text", "image_size")
    return ModelInfo("", arch=arch, **{name: getattr(row, name) for name in sizes})


def weights_bytes(info: ModelInfo) -> float:
    """What the weights of a checkpoint take, four bytes for a parameter; NaN where their number is not known."""
    return max(info.params * 4, 1e8)


def info_of(row: Checkpoint) -> ModelInfo:
    """What the tables know of a public checkpoint, under its own name."""
    return _trained(info_of_architecture(row.arch), row.name, row.pretrained, row)


def zoo_table() -> list[dict[str, Any]]:
    """One row per public checkpoint: the columns of the results table that describe a model, its ``family``, ``note``
    and ``reference``.

    Numbers that are not known are NaN.
    """
    table = []
    for row in checkpoints().values():
        note = row.note
        if not row.activation_matches:
            note = f"wrong activation, cannot be measured: use {other_activation(row.arch)},{row.pretrained}"
        table.append(_line("open_clip", info_of(row), note, row.reference))
    for other in repositories().values():
        same = checkpoints().get((other.arch, other.pretrained))
        said = (same.note, same.reference) if same else (other.note, other.reference)
        table.append(_line(TRANSFORMERS, info_of_repository(other), *said))
    return table


def _line(family: str, info: ModelInfo, note: str, reference: str) -> dict[str, Any]:
    known = asdict(info)
    del known["checkpoint_sha256"]  # known once the file is here
    return known | {"family": family, "note": note, "reference": reference}


def other_activation(arch: str) -> str:
    """open_clip's name of the same architecture with the other activation."""
    suffix = "-quickgelu"
    return arch.removesuffix(suffix) if arch.endswith(suffix) else arch + suffix


def _read(name: str) -> list[dict[str, str]]:
    text = (resources.files("clipeval.models.zoo") / name).read_text("utf-8")
    return list(csv.DictReader(text.splitlines()))


def _typed(row: dict[str, str], table: Any) -> dict[str, Any]:
    convert: dict[str, Callable[[str], Any]] = {
        "str": str,
        "bool": lambda text: text == "True",
        "float": lambda text: float(text) if text else math.nan,
    }
    return {field.name: convert[str(field.type)](row[field.name]) for field in fields(table)}

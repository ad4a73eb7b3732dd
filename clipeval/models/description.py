"""What model a checkpoint is of and how images become its input: from its own words, the tables, and the user's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipeval.models import library, schema, tower, zoo
from clipeval.models.base import Preprocessing
from clipeval.models.schema import Metadata
from clipeval.models.spec import ModelSpec
from clipeval.remote.hub import Snapshot

_GUESSED = ("mean", "std", "interpolation", "resize_mode")
"""What of the preprocessing decides values and may be on no record."""


@dataclass(frozen=True)
class Description:
    """What model a checkpoint is of: open_clip's ``model_cfg``, all settings of its preprocessing, and the
    configuration of its text tower where that is one of transformers.

    ``trained_with_quick_gelu`` is what is on record of the activation, None where nothing is. ``arch`` and ``metadata``
    are what the checkpoint says of itself. ``guess`` says what was taken for preprocessing that is on no record; empty
    where it is.
    """

    model_cfg: dict[str, Any]
    preprocess_cfg: dict[str, Any]
    tower: dict[str, Any] | None
    trained_with_quick_gelu: bool | None = None
    arch: str = ""
    metadata: Metadata | None = None
    guess: str = ""


def of_configuration(
    spec: ModelSpec, content: dict[str, Any], where: Path, snapshot: Snapshot | None, *, offline: bool
) -> Description:
    """By a configuration of open_clip's form in the file ``where``. Raises ModelError."""
    model_cfg = schema.check_model_cfg(content, where)
    settings = schema.check_preprocess_cfg(content, where)
    facts = schema.metadata(content, where) if content.get("metadata") is not None else None
    guess = "" if settings or spec.kind == "trained" else "open_clip's default"
    return _with_input(spec, model_cfg, settings, guess, snapshot, offline, None, schema.arch(content, where), facts)


def of_architecture(
    spec: ModelSpec,
    row: zoo.Checkpoint | None,
    tag: str,
    own: dict[str, Any] | None,
    path: Path,
    snapshot: Snapshot | None,
    *,
    offline: bool,
) -> Description:
    """By the name of an architecture. ``row`` is the checkpoint's line in the tables, ``tag`` the one whose weights it
    has, ``own`` what a file of clipeval-train says of itself. Raises ModelError."""
    arch, guess = spec.arch, ""
    tag = spec.pretrained if spec.kind == "tag" else tag or (row.preprocess_of if row else "")
    if own:
        settings = schema.check_preprocess_cfg(own, path)
    elif tag:
        settings = library.tag_settings(arch, tag)
    else:
        settings = library.common_settings(arch)
        agreed = f"what all public checkpoints of {arch} have" if settings else "open_clip's default"
        guess = "" if row else agreed
    if row:
        quick_gelu: bool | None = row.quick_gelu
    elif tag:
        quick_gelu = settings.get("quick_gelu", False)
    else:
        quick_gelu = own["model_cfg"].get("quick_gelu", False) if own else None
    facts = schema.metadata(own, path) if own else None
    return _with_input(
        spec, library.architecture_config(arch), settings, guess, snapshot, offline, quick_gelu, "", facts
    )


def _with_input(
    spec: ModelSpec,
    model_cfg: dict[str, Any],
    settings: dict[str, Any],
    guess: str,
    snapshot: Snapshot | None,
    offline: bool,
    quick_gelu: bool | None,
    arch: str,
    facts: Metadata | None,
) -> Description:
    """A description whose input is what the user says, where the configuration says something of it."""
    forced = dict(spec.forced)
    for part, key in (("vision_cfg", "image_size"), ("text_cfg", "context_length")):
        if (value := forced.pop(key, None)) is not None:
            model_cfg = model_cfg | {part: model_cfg[part] | {key: value}}
    text_tower = tower.of(model_cfg["text_cfg"], spec.name, own=snapshot, offline=offline)
    preprocess_cfg = library.full_preprocessing({**settings, **forced})
    guess = "" if forced.keys() >= set(_GUESSED) else guess
    return Description(model_cfg, preprocess_cfg, text_tower, quick_gelu, arch, facts, guess)


def guesses(
    spec: ModelSpec, described: Description, shown: Preprocessing, row: zoo.Checkpoint | None, path: Path
) -> Iterator[str]:
    """What was guessed of a checkpoint, and what its name suggests but does not prove: a sentence each."""
    if described.guess:
        guessed = [_shown(shown, key) for key in _GUESSED if key not in dict(spec.forced)]
        given = " beside what is given" if len(guessed) < len(_GUESSED) else ""
        yield (
            f"preprocessing is not in the file: {described.guess} is used{given} ({', '.join(guessed)}); give "
            "`preprocess:` in benchmarks.yaml if it is another"
        )
    if spec.kind != "file" or row or described.metadata:
        return
    if named := zoo.by_file_name(spec.arch, path.name):
        yield (
            f"a file's name proves nothing, so source and samples seen of {named.name} are not taken for it: give them "
            "in benchmarks.yaml, or that checkpoint by its address"
        )
    tag = library.tag_of_file_name(spec.arch, path.name)
    known = zoo.checkpoints().get((spec.arch, tag))
    if known and not known.activation_matches:
        yield (
            f"its name is that of the tag {tag}, whose weights need another activation: if these are they, use "
            f"{zoo.other_activation(spec.arch)},{spec.pretrained}"
        )


def _shown(preprocessing: Preprocessing, key: str) -> str:
    value = getattr(preprocessing, key)
    return f"{key} {_listed(value)}" if key in ("mean", "std") else str(value)


def _listed(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:g}" for value in values)

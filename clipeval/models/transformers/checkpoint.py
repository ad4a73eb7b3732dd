"""A folder or repository of transformers: its files, and what they say of the model."""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from clipeval import digest
from clipeval.errors import ModelError
from clipeval.identity import CheckpointIdentity
from clipeval.models import bounds, compiling, hub, profile, rules, small_files, tokenizer, weights, zoo
from clipeval.models.base import ModelInfo, PixelRecords
from clipeval.models.opened import Opened, with_overrides
from clipeval.models.places import repository_of
from clipeval.models.small_files import SmallFiles
from clipeval.models.spec import ModelSpec
from clipeval.models.transformers import library, sizes
from clipeval.models.transformers.images import Images, images_of
from clipeval.models.transformers.library import Kind, Pieces

_ENCODER_VERSION = 1
"""Raised whenever the same checkpoint would embed differently."""
CONFIG = "config.json"
_INDEX = ".index.json"
_WEIGHTS = ("model.safetensors", f"model.safetensors{_INDEX}", "pytorch_model.bin", f"pytorch_model.bin{_INDEX}")
_PROCESSORS = ("processor_config.json", "preprocessor_config.json")
_TOKENIZER = (*small_files.TOKENIZER, *small_files.VOCABULARIES)
_NOT_OF_THE_MODEL = ("architectures", "transformers_version", "dtype", "torch_dtype")


class TransformersCheckpoint(Opened):
    """A checkpoint of transformers: one weights file or several, and small files that say what they are."""

    @cached_property
    def files(self) -> SmallFiles:
        """Its configurations and its vocabulary on this machine."""
        wanted = (CONFIG, *_PROCESSORS, *_TOKENIZER)
        if self.snapshot is None:
            folder = Path(self.spec.path)
        else:
            with hub.as_model_errors(self.spec.name):
                for name in self.snapshot.matching(wanted):
                    self.snapshot.file(name)
            folder = self.snapshot.folder
        if not any((folder / name).is_file() for name in _PROCESSORS):
            raise ModelError(
                f"{self.spec.name}: '{folder}' does not say how images become its input: it has neither "
                f"{' nor '.join(_PROCESSORS)}."
            )
        tokenizer.require_vocabulary(folder, self.spec.name)
        return small_files.of(folder, wanted, self.spec.name)

    @cached_property
    def config(self) -> dict[str, Any]:
        """Its config.json within bounds."""
        return _checked_config(self.files.folder / CONFIG)

    @property
    def kind(self) -> Kind:
        """What its ``model_type`` says."""
        return library.KINDS[self.config["model_type"]]

    @cached_property
    def pieces(self) -> Pieces:
        """Configuration, image processor and tokenizer, made."""
        assert self.config
        return library.pieces(self.files.copied(), self.spec.name)

    @cached_property
    def images(self) -> Images:
        """How its images are made."""
        return images_of(self.pieces.processor, self.kind, self.spec.name)

    @property
    def pixels(self) -> PixelRecords:
        """Its images as the processor makes them."""
        return PixelRecords(self.images.record_shape, self.images.pixel_settings)

    @cached_property
    def identity(self) -> CheckpointIdentity:
        """What decides the embeddings, by content. Which backend resizes is a class of the processor."""
        left = {key: value for key, value in self.config.items() if key not in _NOT_OF_THE_MODEL}
        of_tokens = {name: hexdigest for name, hexdigest in self.files.digests.items() if name not in _PROCESSORS}
        made_by = type(self.pieces.tokenizer).__name__
        return CheckpointIdentity(
            weights=self.sha256,
            model=digest.of_value({key: value for key, value in left.items() if not key.startswith("_")}),
            preprocessing=digest.of_value(self.images.settings),
            tokenizer=digest.of_value([made_by, {k: v for k, v in of_tokens.items() if k != CONFIG}]),
            encoder=compiling.version(
                f"clipeval {_ENCODER_VERSION}, transformers {library.VERSION}", self.spec.compiled
            ),
        )

    @cached_property
    def info(self) -> ModelInfo:
        """The facts: of the shipped table where it knows the repository, and of its configuration; ``spec.overrides``
        win."""
        row = zoo.repositories().get(repository_of(self.spec.pretrained)[0].name) if self.snapshot else None
        known = zoo.info_of_repository(row) if row else ModelInfo(self.spec.name)
        found = replace(known, arch=known.arch or self.kind.model)
        return with_overrides(replace(found, **asdict(self._sizes)), self)

    @property
    def _sizes(self) -> profile.Profile:
        key = [library.VERSION, self.config, self.images.settings, library.text_length(self.pieces, self.kind)]
        return profile.remembered(key, lambda: sizes.measured(self.pieces, self.kind, self.images))


def opened(spec: ModelSpec, *, offline: bool) -> TransformersCheckpoint:
    """The checkpoint that ``spec`` names. Of one on the hub the repository is asked for its commit and for the digests
    of its weights, unless ``offline``; the weights are fetched when they are needed. Raises ModelError."""
    if spec.path:
        found = TransformersCheckpoint(spec, _names_in(Path(spec.path), spec.name), offline)
        assert found.stamps  # of now
        return found
    repository, _ = repository_of(spec.pretrained)
    repository = replace(repository, revision=spec.commit) if spec.commit else repository
    snapshot = hub.snapshot(repository, (CONFIG,), spec.name, offline=offline)
    with hub.as_model_errors(spec.name):
        _checked_config(snapshot.file(CONFIG))  # before anything large is asked for
        first = snapshot.first(_WEIGHTS)
        names = _shards(snapshot.file(first)) if first.endswith(_INDEX) else (first,)
    return TransformersCheckpoint(spec, names, offline, snapshot)


def _checked_config(path: Path) -> dict[str, Any]:
    config = rules.read_json(path)
    bounds.refuse_code(config, path)
    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in library.KINDS:
        raise ModelError(
            f"{path}: model_type is {rules.shortened(kind)}, which is no model of images and texts that is read here: "
            f"{', '.join(library.KINDS)}."
        )
    bounds.check_towers(config, path)
    return config


def _names_in(folder: Path, wanted_by: str) -> tuple[str, ...]:
    first = next((folder / name for name in _WEIGHTS if (folder / name).exists()), None)
    if first is None:
        raise ModelError(f"{wanted_by}: the folder '{folder}' has no weights: none of {', '.join(_WEIGHTS)}.")
    names = _shards(first) if first.name.endswith(_INDEX) else (first.name,)
    for name in names:
        if not (folder / name).exists():
            raise ModelError(f"{wanted_by}: the file '{folder / name}', which {first.name} names, does not exist.")
        weights.require_regular(folder / name)
    return tuple(str(folder / name) for name in names)


def _leads_away(name: str) -> bool:
    return name in ("", ".", "..") or any(sign in name for sign in "/\\\0")


def _shards(index: Path) -> tuple[str, ...]:
    """The weights files that an index names."""
    named = rules.read_json(index).get("weight_map")
    found = sorted(set(map(str, named.values()))) if isinstance(named, dict) else []
    if not found or len(found) > 1000:
        raise ModelError(f"{index}: `weight_map` names {len(found):,} files; expected 1 to 1,000.")
    if (odd := next((name for name in found if _leads_away(name)), None)) is not None:
        raise ModelError(f"{index}: `weight_map` names {odd!r:.200}, which is no file beside it.")
    return tuple(found)

"""A checkpoint with its file found: what it is, from its content, asked by all and opened once.

The identity and the facts of a checkpoint need its file's digest and its configuration, but no model that is built.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from clipeval import digest
from clipeval.errors import ModelError
from clipeval.identity import CheckpointIdentity
from clipeval.models import description, hub, layout, library, profile, schema, tokenizer, weights, zoo
from clipeval.models.base import ModelInfo, Preprocessing
from clipeval.models.description import Description
from clipeval.models.specs import HF_PREFIX, HUB_PREFIX, ModelSpec
from clipeval.models.tokenizer import Tokenizer

CONFIG_FILE = "open_clip_config.json"
_ENCODER_VERSION = 1
"""Raised whenever the same checkpoint would embed differently: it is part of every stored embedding's key."""
_HUB_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
_FOLDER_FILES = (*_HUB_FILES, "open_clip_pytorch_model.safetensors", "model.safetensors", "pytorch_model.bin")


@dataclass(frozen=True)
class Checkpoint:
    """One checkpoint whose file is ``path``, on this machine. ``offline``: nothing else of it is fetched either.

    Its properties raise ModelError when what they need cannot be had or read.
    """

    spec: ModelSpec
    path: Path
    offline: bool
    stamp: tuple[int, int, int, int]
    """Of the file when it was opened: see ``digest.stamp``."""

    @cached_property
    def sha256(self) -> str:
        """The digest of the weights file."""
        try:
            return digest.of_file(self.path)
        except OSError as error:
            raise ModelError(f"{self.path}: cannot be read: {error.strerror or error}.") from error

    @cached_property
    def identity(self) -> CheckpointIdentity:
        """What decides the embeddings, by content."""
        described = self.description
        return CheckpointIdentity(
            weights=self.sha256,
            model=digest.of_value([described.model_cfg, described.tower]),
            preprocessing=digest.of_value(asdict(self.preprocessing)),
            tokenizer=self.tokenizer.digest,
            encoder=f"clipeval {_ENCODER_VERSION}, open_clip {library.VERSION}",
        )

    @cached_property
    def info(self) -> ModelInfo:
        """The facts: of the shipped tables where they know the checkpoint, else of its description;
        ``spec.overrides`` win."""
        found = zoo.info_of(self._row) if self._row else self._described_info()
        if {"image_size", "context_length"} & dict(self.spec.forced).keys():
            found = replace(found, **asdict(profile.of_config(self.description.model_cfg, self.description.tower)))
        found = replace(
            found,
            model=self.spec.name,
            pretrained=self.spec.pretrained,
            checkpoint_sha256=self.sha256,
            **_overriding(dict(self.spec.overrides)),
        )
        return replace(found, gmacs_total=found.gmacs * found.samples_seen)

    @cached_property
    def description(self) -> Description:
        """What model it is of. A file that describes itself is read for it, tensors left on the disk."""
        return self._described(self._remembered(weights.read(self.path)) if self._may_describe_itself else {})

    @cached_property
    def remarks(self) -> tuple[str, ...]:
        """What was guessed about it, and what of its file is not used, a sentence each. Of a file that cannot be read
        nothing is said here: loading it says why."""
        try:
            found = description.guesses(self.spec, self.description, self.preprocessing, self._row, self.path)
            return (*found, *self._left)
        except ModelError:
            return ()

    @cached_property
    def preprocessing(self) -> Preprocessing:
        """How its images are made into its input."""
        described = self.description
        settings = described.preprocess_cfg
        return Preprocessing(
            library.both_sides(described.model_cfg["vision_cfg"].get("image_size", 224)),
            _per_channel(settings["mean"]),
            _per_channel(settings["std"]),
            settings["interpolation"],
            settings["resize_mode"],
            settings["fill_color"],
        )

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """Its tokenizer, not made yet."""
        folder = Path(self.spec.path) if self.spec.kind == "local-dir" else None
        text_cfg = self.description.model_cfg["text_cfg"]
        return tokenizer.of(text_cfg, self.spec.name, folder=folder, offline=self.offline)

    def read(self) -> Any:
        """The content of the weights file (``weights.read``), which is not kept here."""
        content = self._remembered(weights.read(self.path))
        if self._may_describe_itself:  # it need not be read for that again
            vars(self).setdefault("description", self._described(content))
        return content

    def require_unchanged(self) -> None:
        """Raises ModelError unless the file still is the one whose digest is in ``identity``.

        To be asked after what was read of it has been copied: the pages of a mapped file are those of the present file.
        """
        try:
            unchanged = digest.stamp(self.path) == self.stamp and digest.of_file(self.path) == self.sha256
        except OSError:
            unchanged = False
        if not unchanged:
            raise ModelError(
                f"{self.spec.name}: '{self.path}' changed since it was opened. Run it again when it is written whole."
            )

    @property
    def _may_describe_itself(self) -> bool:
        return self.spec.kind == "trained" or (bool(self.spec.arch) and self.path.suffix == ".pt")

    def _remembered(self, content: Any) -> Any:
        """``content``, of which it is kept what ``remarks`` says of it."""
        vars(self).setdefault("_left", layout.remarks(content, self.path))
        return content

    @cached_property
    def _left(self) -> tuple[str, ...]:
        """What of its file is not used. Files of tags are taken to be in order."""
        return () if self.spec.kind == "tag" else layout.remarks(weights.read(self.path), self.path)

    @cached_property
    def _row(self) -> zoo.Checkpoint | None:
        """Its line in the shipped tables, by its address or the digest of its weights, never by a file's name."""
        spec = self.spec
        if spec.kind == "hub":
            return zoo.by_hub(spec.pretrained.removeprefix(HUB_PREFIX))
        if not spec.arch:
            return None
        known = zoo.checkpoints()
        if row := known.get((spec.arch, spec.pretrained)):
            return row
        return known.get((spec.arch, self._published_tag)) if self._published_tag else None

    @cached_property
    def _published_tag(self) -> str:
        """The tag of which its file has the very weights, as far as open_clip tells their digest."""
        return library.tag_of_weights(self.spec.arch, self.sha256) if self.spec.kind in ("file", "hf") else ""

    def _described_info(self) -> ModelInfo:
        arch, known = self.spec.arch, self.description
        found = zoo.info_of_architecture(arch) if arch else ModelInfo("", arch=known.arch)
        if math.isnan(found.params):  # no architecture of open_clip, or one of a newer open_clip than the tables
            found = replace(found, **asdict(profile.of_config(known.model_cfg, known.tower)))
        return replace(found, **asdict(known.metadata)) if known.metadata else found

    def _described(self, content: Any) -> Description:
        spec, offline = self.spec, self.offline
        if spec.arch:
            own = weights.require_trained(content, self.path) if weights.is_trained(content) else None
            return description.of_architecture(spec, self._row, self._published_tag, own, self.path, offline=offline)
        if spec.kind == "trained":
            content, where = weights.require_trained(content, self.path), self.path
        else:
            where = self._config_file()
            content = schema.read_json(where)
        return description.of_configuration(spec, content, where, offline=offline)

    def _config_file(self) -> Path:
        if self.spec.kind == "local-dir":
            return Path(self.spec.path) / CONFIG_FILE
        repository = self.spec.pretrained.removeprefix(HUB_PREFIX)
        return hub.fetch(repository, (CONFIG_FILE,), self.spec.name, offline=self.offline)


def opened(spec: ModelSpec, *, offline: bool) -> Checkpoint:
    """The checkpoint that ``spec`` names, its weights downloaded where they are not here and ``offline`` allows.

    Raises ModelError that names the file, and the hub repository where it would come from.
    """
    path = located(spec, offline=offline)
    weights.require_regular(path)
    try:
        return Checkpoint(spec, path, offline, digest.stamp(path))
    except OSError as error:
        raise ModelError(f"{spec.name}: '{path}' cannot be read: {error.strerror or error}.") from error


def located(spec: ModelSpec, *, offline: bool) -> Path:
    """The weights of a checkpoint as a file on this machine; see ``opened``."""
    if spec.kind == "local-dir":
        return _in_folder(Path(spec.path))
    if spec.path:
        if not Path(spec.path).exists():
            raise ModelError(f"{spec.name}: the file '{spec.path}' does not exist (any more).")
        return Path(spec.path)
    repository, files = _address(spec)
    return hub.fetch(repository, files, spec.name, offline=offline)


def _address(spec: ModelSpec) -> tuple[str, tuple[str, ...]]:
    """(repository, files that hold the same weights, preferred first)."""
    if spec.kind == "hub":
        return spec.pretrained.removeprefix(HUB_PREFIX), _HUB_FILES
    if spec.kind == "hf":
        organisation, name, file = spec.pretrained.removeprefix(HF_PREFIX).split("/", 2)
        return f"{organisation}/{name}", (file,)
    row = zoo.checkpoints().get((spec.arch, spec.pretrained))
    address = row.hub if row else library.tag_settings(spec.arch, spec.pretrained).get("hub", "")
    repository, _, file = address.rpartition("/")
    if not file:
        return repository, _HUB_FILES
    return repository, tuple(dict.fromkeys((str(Path(file).with_suffix(".safetensors")), file)))


def _in_folder(folder: Path) -> Path:
    for name in _FOLDER_FILES:
        if (folder / name).is_file():
            return folder / name
    others = sorted(path for suffix in ("safetensors", "bin", "pth", "pt") for path in folder.glob(f"*.{suffix}"))
    if len(others) == 1:
        return others[0]
    found = f"several: {', '.join(path.name for path in others)}" if others else "none"
    raise ModelError(
        f"local-dir:{folder}: one weights file is needed, named {_HUB_FILES[0]} for example; found {found}."
    )


def _overriding(given: dict[str, Any]) -> dict[str, Any]:
    """Facts that the configuration gives, with those that are of another source no longer: of what is said to be
    trained on other data, neither family nor size are known; a number that is given is not from the paper."""
    facts = dict(given)
    if "source" in given:
        facts = {"source_family": given["source"], "unique_samples": math.nan} | facts
    if "samples_seen" in given:
        facts = {"samples_seen_from": "config"} | facts
    return facts


def _per_channel(value: Any) -> tuple[float, float, float]:
    red, green, blue = value if isinstance(value, tuple | list) else (value,) * 3
    return float(red), float(green), float(blue)

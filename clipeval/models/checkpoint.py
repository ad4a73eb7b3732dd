"""A checkpoint of open_clip with its file found: what it is, from its content, asked by all and opened once.

The identity and the facts of a checkpoint need its file's digest and its configuration, but no model that is built.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from clipeval import digest
from clipeval.errors import AbsentError, ModelError, RemoteError
from clipeval.identity import CheckpointIdentity
from clipeval.models import compiling, description, hub, layout, library, profile, rules, tokenizer, weights, zoo
from clipeval.models.base import ModelInfo, PixelRecords, Preprocessing
from clipeval.models.description import Description
from clipeval.models.opened import Opened, with_overrides
from clipeval.models.places import HUB_PREFIX, TRANSFORMERS_PREFIX, repository_of
from clipeval.models.spec import ModelSpec
from clipeval.models.tokenizer import Tokenizer
from clipeval.remote.hub import Repository, Snapshot

CONFIG_FILE = "open_clip_config.json"
_ENCODER_VERSION = 1
"""Raised whenever the same checkpoint would embed differently: it is part of every stored embedding's key."""
_HUB_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
_FOLDER_FILES = (*_HUB_FILES, "open_clip_pytorch_model.safetensors", "model.safetensors", "pytorch_model.bin")


@dataclass(frozen=True)
class Checkpoint(Opened):
    """A checkpoint of open_clip: one weights file, and what model it is of."""

    @property
    def path(self) -> Path:
        """The weights file on this machine, fetched where it is not."""
        return self.paths[0]

    @property
    def name(self) -> str:
        """The weights file's path, or its name in the repository."""
        return self.names[0]

    @cached_property
    def identity(self) -> CheckpointIdentity:
        """What decides the embeddings, by content."""
        described = self.description
        return CheckpointIdentity(
            weights=self.sha256,
            model=digest.of_value([described.model_cfg, described.tower]),
            preprocessing=digest.of_value(asdict(self.preprocessing)),
            tokenizer=self.tokenizer.digest,
            encoder=compiling.version(f"clipeval {_ENCODER_VERSION}, open_clip {library.VERSION}", self.spec.compiled),
        )

    @cached_property
    def info(self) -> ModelInfo:
        """The facts: of the shipped tables where they know the checkpoint, else of its description;
        ``spec.overrides`` win."""
        found = zoo.info_of(self._row) if self._row else self._described_info()
        if {"image_size", "context_length"} & dict(self.spec.forced).keys():
            found = replace(found, **asdict(profile.of_config(self.description.model_cfg, self.description.tower)))
        return with_overrides(found, self)

    @cached_property
    def description(self) -> Description:
        """What model it is of. A file that may describe itself is read for it, tensors left on the disk."""
        return self._described(self._remembered(weights.read(self.path)) if self._may_describe_itself else {})

    @property
    def remarks(self) -> tuple[str, ...]:
        """What was guessed about it, and what of its file is not used, a sentence each. Of a file that cannot be read
        nothing is said here: loading it says why."""
        stale = super().remarks
        name = Path(self.name)
        try:
            found = description.guesses(self.spec, self.description, self.preprocessing, self._row, name)
            return (*stale, *found, *self._left)
        except ModelError:
            return stale

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

    @property
    def pixels(self) -> PixelRecords:
        """Its images after resize and crop."""
        return PixelRecords((*self.preprocessing.size, 3), self.preprocessing.spatial_key())

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """Its tokenizer, not made yet."""
        folder = Path(self.spec.path) if self.spec.kind == "local-dir" else None
        text_cfg = self.description.model_cfg["text_cfg"]
        return tokenizer.of(text_cfg, self.spec.name, folder=folder, own=self.snapshot, offline=self.offline)

    def read(self) -> Any:
        """The content of the weights file (``weights.read``), which is not kept here."""
        content = self._remembered(weights.read(self.path))
        if self._may_describe_itself:  # it need not be read for that again
            vars(self).setdefault("description", self._described(content))
        return content

    @property
    def _may_describe_itself(self) -> bool:
        unknown = bool(self.spec.arch) and Path(self.name).suffix == ".pt" and self._row is None
        return self.spec.kind == "trained" or unknown

    def _remembered(self, content: Any) -> Any:
        """``content``, of which it is kept what ``remarks`` says of it."""
        vars(self).setdefault("left", layout.remarks(content, self.path))
        return content

    @property
    def _left(self) -> tuple[str, ...]:
        """What of its file is not used. Files of tags are taken to be in order; one not here yet says nothing."""
        if self.spec.kind == "tag" or ("left" not in vars(self) and not self.is_here):
            return ()
        if "left" not in vars(self):
            self._remembered(weights.read(self.path))
        found: tuple[str, ...] = vars(self)["left"]
        return found

    @cached_property
    def _row(self) -> zoo.Checkpoint | None:
        """Its line in the shipped tables, by its address or the digest of its weights, never by a file's name."""
        spec = self.spec
        if spec.kind == "hub":
            return zoo.by_hub(repository_of(spec.pretrained)[0].name)
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
            return description.of_architecture(
                spec, self._row, self._published_tag, own, Path(self.name), self.snapshot, offline=offline
            )
        if spec.kind == "trained":
            content, where = weights.require_trained(content, self.path), self.path
        else:
            where = self._config_file()
            content = rules.read_json(where)
        return description.of_configuration(spec, content, where, self.snapshot, offline=offline)

    def _config_file(self) -> Path:
        if self.spec.kind == "local-dir":
            return Path(self.spec.path) / CONFIG_FILE
        assert self.snapshot
        with hub.as_model_errors(self.spec.name):
            return self.snapshot.file(CONFIG_FILE)


def opened(spec: ModelSpec, *, offline: bool) -> Checkpoint:
    """The checkpoint that ``spec`` names. Of one on the hub the repository is asked for its commit and for the digest
    of its weights, unless ``offline``; the weights are fetched when they are needed.

    Raises ModelError that names the file, and the hub repository where it would come from.
    """
    if spec.kind == "local-dir" or spec.path:
        path = _in_folder(Path(spec.path)) if spec.kind == "local-dir" else Path(spec.path)
        if not path.exists():
            raise ModelError(f"{spec.name}: the file '{path}' does not exist (any more).")
        weights.require_regular(path)
        found = Checkpoint(spec, (str(path),), offline)
        assert found.stamps  # of now
        return found
    repository, files = _address(spec)
    try:
        snapshot = hub.snapshot(repository, files, spec.name, offline=offline)
        with hub.as_model_errors(spec.name):
            return Checkpoint(spec, (_first(snapshot, files, spec),), offline, snapshot)
    except ModelError as error:
        if offline and (size := _usual_size(spec)):
            raise ModelError(f"{error} Its weights take {size}.") from error
        raise


def _first(snapshot: Snapshot, files: Sequence[str], spec: ModelSpec) -> str:
    try:
        return snapshot.first(files)
    except AbsentError as error:
        other = ""
        with contextlib.suppress(RemoteError):
            if spec.kind == "hub" and snapshot.announced("config.json"):
                other = spec.pretrained.replace(HUB_PREFIX, TRANSFORMERS_PREFIX)
        if not other:
            raise
        raise AbsentError(f"{error} It may be one of transformers. Use {other}") from error


def expected(spec: ModelSpec) -> ModelInfo:
    """What the shipped tables let expect of a checkpoint of open_clip that is not here: the facts of its
    architecture."""
    row = zoo.by_hub(repository_of(spec.pretrained)[0].name) if spec.kind == "hub" else None
    return zoo.info_of_architecture(row.arch if row else spec.arch)


def _usual_size(spec: ModelSpec) -> str:
    """The size of its weights, as far as it is known; empty where it is not."""
    size = zoo.weights_bytes(expected(spec))
    return "" if math.isnan(size) else f"about {size / 1e9:.1f} GB"


def _address(spec: ModelSpec) -> tuple[Repository, tuple[str, ...]]:
    """(repository, files that hold the same weights, preferred first)."""
    if spec.kind in ("hub", "hf"):
        repository, file = repository_of(spec.pretrained)
        files: tuple[str, ...] = (file,) if file else _HUB_FILES
    else:
        row = zoo.checkpoints().get((spec.arch, spec.pretrained))
        address = row.hub if row else library.tag_settings(spec.arch, spec.pretrained).get("hub", "")
        name, _, file = address.rpartition("/")
        repository = Repository("model", name)
        files = (*dict.fromkeys((str(Path(file).with_suffix(".safetensors")), file)),) if file else _HUB_FILES
    return (replace(repository, revision=spec.commit) if spec.commit else repository), files


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


def _per_channel(value: Any) -> tuple[float, float, float]:
    red, green, blue = value if isinstance(value, tuple | list) else (value,) * 3
    return float(red), float(green), float(blue)

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
from clipeval.models import hub, library, profile, schema, tokenizer, tower, weights, zoo
from clipeval.models.base import ModelInfo, Preprocessing
from clipeval.models.schema import Metadata
from clipeval.models.specs import ModelSpec, repository_of
from clipeval.models.tokenizer import Tokenizer
from clipeval.remote import client
from clipeval.remote.hub import Repository, Snapshot

CONFIG_FILE = "open_clip_config.json"
_ENCODER_VERSION = 1
"""Raised whenever the same checkpoint would embed differently: it is part of every stored embedding's key."""
_HUB_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
_FOLDER_FILES = (*_HUB_FILES, "open_clip_pytorch_model.safetensors", "model.safetensors", "pytorch_model.bin")


@dataclass(frozen=True)
class Description:
    """What model a checkpoint is of: open_clip's ``model_cfg``, all settings of its preprocessing, and the
    configuration of its text tower where that is one of transformers.

    ``trained_with_quick_gelu`` is what is on record of the activation, None where nothing is. ``arch`` and ``metadata``
    are what the checkpoint says of itself.
    """

    model_cfg: dict[str, Any]
    preprocess_cfg: dict[str, Any]
    tower: dict[str, Any] | None
    trained_with_quick_gelu: bool | None = None
    arch: str = ""
    metadata: Metadata | None = None


@dataclass(frozen=True)
class Checkpoint:
    """One checkpoint whose weights are a file on this machine, or ``name`` in a ``snapshot`` of the hub; those are
    fetched when they are first needed. ``offline``: nothing else of it is fetched either.

    Its properties raise ModelError when what they need cannot be had or read.
    """

    spec: ModelSpec
    name: str
    offline: bool
    snapshot: Snapshot | None = None

    @cached_property
    def path(self) -> Path:
        """The weights on this machine, fetched where they are not."""
        if self.snapshot is None:
            return Path(self.name)
        with hub.as_model_errors(self.spec.name):
            return self.snapshot.file(self.name)

    @cached_property
    def stamp(self) -> tuple[int, int, int, int]:
        """Of the file when it was opened: see ``digest.stamp``."""
        try:
            return digest.stamp(self.path)
        except OSError as error:
            raise ModelError(f"{self.spec.name}: '{self.path}' cannot be read: {error.strerror or error}.") from error

    @property
    def is_here(self) -> bool:
        """Whether the weights are on this machine."""
        if self.snapshot is None:
            return True
        with hub.as_model_errors(self.spec.name):
            return self.snapshot.local(self.name) is not None

    @property
    def revision(self) -> str:
        """The commit of the hub's repository that it is of; empty for other files."""
        return self.snapshot.commit if self.snapshot else ""

    @cached_property
    def sha256(self) -> str:
        """The digest of the weights file, as the hub announces it where they are not here yet."""
        if self.snapshot is not None:
            with hub.as_model_errors(self.spec.name):
                if announced := self.snapshot.sha256(self.name):
                    return announced
        try:
            return digest.of_file(self.path)
        except OSError as error:
            raise ModelError(f"{self.path}: cannot be read: {error.strerror or error}.") from error

    @cached_property
    def identity(self) -> CheckpointIdentity:
        """What decides the embeddings, by content."""
        description = self.description
        return CheckpointIdentity(
            weights=self.sha256,
            model=digest.of_value([description.model_cfg, description.tower]),
            preprocessing=digest.of_value(asdict(self.preprocessing)),
            tokenizer=self.tokenizer.digest,
            encoder=f"clipeval {_ENCODER_VERSION}, open_clip {library.VERSION}",
        )

    @cached_property
    def info(self) -> ModelInfo:
        """The facts: of the shipped tables where they know the checkpoint, else of its description;
        ``spec.overrides`` win."""
        found = zoo.info_of(self._row) if self._row else self._described_info()
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
        """What model it is of. A file that describes itself is read for it, tensors left on the disk; one that is not
        on this machine yet is known by its architecture, and read for the rest when it is loaded."""
        reads = self._may_describe_itself and (self.spec.kind == "trained" or self.is_here)
        return self._described(weights.read(self.path) if reads else {})

    @cached_property
    def preprocessing(self) -> Preprocessing:
        """How its images are made into its input."""
        description = self.description
        settings = description.preprocess_cfg
        return Preprocessing(
            library.both_sides(description.model_cfg["vision_cfg"].get("image_size", 224)),
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
        return tokenizer.of(text_cfg, self.spec.name, folder=folder, own=self.snapshot, offline=self.offline)

    def read(self) -> Any:
        """The content of the weights file (``weights.read``), which is not kept here."""
        is_new = not self.is_here
        content = weights.read(self.path)
        if self._may_describe_itself and (
            is_new or "description" not in vars(self)
        ):  # it need not be read for it again
            vars(self)["description"] = self._described(content)
            vars(self).pop("info", None)
        return content

    def remove_fetched(self) -> None:
        """Remove the weights from this machine where this run has fetched them."""
        if self.snapshot is not None:
            client.remove([self.snapshot.folder / self.name])
            for known in ("path", "stamp"):
                vars(self).pop(known, None)

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
        return self.spec.kind == "trained" or (bool(self.spec.arch) and Path(self.name).suffix == ".pt")

    @cached_property
    def _row(self) -> zoo.Checkpoint | None:
        """Its line in the shipped tables."""
        spec = self.spec
        if spec.kind == "hub":
            return zoo.by_hub(repository_of(spec.pretrained)[0].name)
        name = Path(self.name).name
        return zoo.checkpoints().get((spec.arch, spec.pretrained)) or zoo.by_file_name(spec.arch, name)

    def _described_info(self) -> ModelInfo:
        arch, known = self.spec.arch, self.description
        found = zoo.info_of_architecture(arch) if arch else ModelInfo("", arch=known.arch)
        if math.isnan(found.params):  # no architecture of open_clip, or one of a newer open_clip than the tables
            found = replace(found, **asdict(profile.of_config(known.model_cfg, known.tower)))
        return replace(found, **asdict(known.metadata)) if known.metadata else found

    def _described(self, content: Any) -> Description:
        if self.spec.arch:
            return self._of_architecture(content)
        if self.spec.kind == "trained":
            content, where = weights.require_trained(content, self.path), self.path
        else:
            where = self._config_file()
            content = schema.read_json(where)
        model_cfg = schema.check_model_cfg(content, where)
        settings = schema.check_preprocess_cfg(content, where)
        return Description(
            model_cfg,
            library.full_preprocessing(settings),
            tower.of(model_cfg["text_cfg"], self.spec.name, own=self.snapshot, offline=self.offline),
            arch=schema.arch(content, where),
            metadata=schema.metadata(content, where) if content.get("metadata") is not None else None,
        )

    def _of_architecture(self, content: Any) -> Description:
        spec, tag, row = self.spec, self.spec.pretrained, self._row
        own = weights.require_trained(content, self.path) if weights.is_trained(content) else None
        if spec.kind != "tag":
            tag = row.preprocess_of if row else ""
        settings = library.tag_settings(spec.arch, tag) if tag else library.common_settings(spec.arch)
        if row and row.pretrained == spec.pretrained:
            quick_gelu: bool | None = row.quick_gelu
        elif spec.kind == "tag":
            quick_gelu = settings.get("quick_gelu", False)
        elif own:
            quick_gelu = own["model_cfg"].get("quick_gelu", False)
        else:
            quick_gelu = library.published_activation(spec.arch, Path(self.name).name) if spec.kind == "file" else None
        model_cfg = library.architecture_config(spec.arch)
        return Description(
            model_cfg,
            library.full_preprocessing(settings),
            tower.of(model_cfg["text_cfg"], spec.name, own=self.snapshot, offline=self.offline),
            quick_gelu,
            metadata=schema.metadata(own, self.path) if own else None,
        )

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
        found = Checkpoint(spec, str(path), offline)
        assert found.stamp  # of now
        return found
    repository, files = _address(spec)
    snapshot = hub.snapshot(repository, files, spec.name, offline=offline)
    with hub.as_model_errors(spec.name):
        return Checkpoint(spec, snapshot.first(files), offline, snapshot)


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

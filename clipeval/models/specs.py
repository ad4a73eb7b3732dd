"""MODEL specs: from what a user writes to a list of checkpoints. Nothing is read but names and file names."""

from __future__ import annotations

import glob
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote

from clipeval.config import Config, ModelEntry
from clipeval.errors import UsageError, suggest
from clipeval.models import zoo
from clipeval.paths import with_home
from clipeval.regular import read_regular
from clipeval.remote.hub import Repository

Kind = Literal["tag", "file", "hf", "hub", "local-dir", "trained"]

HUB_PREFIX, LOCAL_PREFIX, HF_PREFIX = "hf-hub:", "local-dir:", "hf://"
_OVERRIDES = ("source", "source_family", "unique_samples", "samples_seen", "samples_seen_from")
_LATEST_BYTES, _CONFIG_BYTES = 4096, 1 << 20
_REVISION = r"refs/(?:pr|convert)/[\w.-]+|[^/@\s]+"
_FILE = re.compile(rf"hf://(?P<name>[\w.-]+/[\w.-]+)(?:@(?P<revision>{_REVISION}))?/(?P<file>.*[^/])")
_REPOSITORY = re.compile(r"hf-hub:(?P<name>[\w.-]+/[\w.-]+)(?:@(?P<revision>[^@\s]+))?")
_WEIGHT_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".safetensors", ".npz", ".npy")


@dataclass(frozen=True)
class ModelSpec:
    """One checkpoint, not yet looked at.

    ``name`` identifies it in the results. ``kind`` says where the weights are: an open_clip ``tag``; a ``file`` on this
    machine or one on the hub (``hf``), both of architecture ``arch``; a ``hub`` repository or a ``local-dir`` with an
    open_clip configuration; a checkpoint ``trained`` by clipeval-train. ``path`` is the local file or folder, if any.
    ``overrides`` are facts from the configuration that win over what clipeval finds out. ``forced`` is what it says of
    the model's input (keys of ``PreprocessEntry``, ``image_size``, ``context_length``), which decides values.
    ``commit`` is that of the hub's repository once it has been looked up.
    """

    name: str
    kind: Kind
    arch: str = ""
    pretrained: str = ""
    path: str = ""
    overrides: tuple[tuple[str, Any], ...] = ()
    forced: tuple[tuple[str, Any], ...] = ()
    commit: str = ""


def resolve(words: Sequence[str], config: Config) -> list[ModelSpec]:
    """The checkpoints that ``words`` name, in order and without repetitions; no words: ``config.models``.

    Raises UsageError that says which word or which place in the configuration is wrong and what was probably meant.
    """
    resolver = _Resolver(config)
    if words:
        found = [spec for word in words for spec in resolver.word(word, "")]
    else:
        found = [
            spec
            for index, entry in enumerate(config.models)
            for spec in resolver.entry(entry, f"{config.path}: models[{index}]")
        ]
    unique: dict[ModelSpec, ModelSpec] = {}
    for spec in found:
        unique.setdefault(replace(spec, name=""), spec)
    kept = list(unique.values())
    names = [spec.name for spec in kept]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UsageError(f"two different models are named '{twice}'. Give one of them another `name` in {config.path}.")
    return kept


class _Resolver:
    """Looks words up in one configuration. ``where`` is the place in that file, for messages, or empty."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._models = {
            _name(entry): (entry, f"{config.path}: models[{index}]")
            for index, entry in enumerate(config.models)
            if isinstance(entry, ModelEntry)
        }
        self._open_zoos: list[str] = []

    def entry(self, entry: ModelEntry | str, where: str) -> list[ModelSpec]:
        """The checkpoints of one item of ``models`` or of a zoo."""
        if isinstance(entry, str):
            return self.word(entry, f"{where}: ")
        if entry.spec is not None and entry.arch is None and entry.pretrained is None:
            specs = self.word(entry.spec, f"{where}.spec: ", look_up=False)
        elif entry.spec is None and entry.arch is not None and entry.pretrained is not None:
            pretrained = with_home(entry.pretrained)
            with _looking_up(pretrained, f"{where}.pretrained: "):
                specs = [_of_architecture(entry.arch, pretrained, f"{where}.arch: ", f"{where}.pretrained: ")]
        else:
            raise UsageError(f"{where}: give either `spec`, or `arch` with `pretrained`.")
        if entry.name is not None:
            if len(specs) > 1:
                raise UsageError(f"{where}.name: '{entry.name}' would name {len(specs)} checkpoints. Leave it out.")
            specs = [replace(spec, name=entry.name) for spec in specs]
        overrides = tuple((key, value) for key in _OVERRIDES if (value := getattr(entry, key)) is not None)
        forced = _forced(entry, where)
        return [replace(spec, overrides=overrides, forced=forced) for spec in specs]

    def word(self, word: str, where: str, look_up: bool = True) -> list[ModelSpec]:
        """The checkpoints one word names: a model or zoo by name (unless ``look_up`` is off), or a MODEL spec."""
        if look_up and word in self._config.zoos:
            return self._zoo(word)
        if look_up and word in self._models:
            return self.entry(*self._models[word])
        if word in zoo.ZOOS:
            return [_of_zoo(row) for row in zoo.members(word)]
        if "\0" in word:
            raise UsageError(f"{where}{word!r:.200} holds a NUL character, which no name of a file or model does.")
        with _looking_up(word, where):
            return self._address(_with_home(word), where)

    def _address(self, word: str, where: str) -> list[ModelSpec]:
        if word.startswith(HUB_PREFIX):
            return [_of_hub(word, where)]
        if word.startswith(LOCAL_PREFIX):
            return [_of_folder(word, where)]
        if "," in word and not Path(word).exists():
            arch, _, pretrained = word.partition(",")
            return [_of_architecture(arch, pretrained, where, where)]
        return _of_paths(word, where, [*self._config.zoos, *self._models, *zoo.ZOOS], self._config.path)

    def _zoo(self, name: str) -> list[ModelSpec]:
        place = f"{self._config.path}: zoos.{name}"
        if name in self._open_zoos:
            raise UsageError(f"{place}: contains itself: {' -> '.join([*self._open_zoos, name])}.")
        self._open_zoos.append(name)
        entries = enumerate(self._config.zoos[name])
        specs = [spec for index, entry in entries for spec in self.entry(entry, f"{place}[{index}]")]
        self._open_zoos.pop()
        return specs


@contextmanager
def _looking_up(word: str, where: str) -> Iterator[None]:
    """A word may be too long for a name, thousands of folders deep, or in a folder that may not be looked into."""
    try:
        yield
    except (OSError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{where}'{word:.200}' cannot be looked up: {reason}.") from error


def _with_home(word: str) -> str:
    """A MODEL spec with the home folder for ``~`` where its path begins."""
    for start in (LOCAL_PREFIX, word.partition(",")[0] + "," if "," in word else ""):
        if start and word.startswith(start):
            return start + with_home(word.removeprefix(start))
    return with_home(word)


def _name(entry: ModelEntry) -> str:
    return entry.name or entry.spec or f"{entry.arch},{entry.pretrained}"


def _forced(entry: ModelEntry, where: str) -> tuple[tuple[str, Any], ...]:
    """What an entry says of the model's input; ``preprocess.size`` is another word for ``image_size``."""
    given = entry.preprocess.model_dump(exclude_none=True) if entry.preprocess else {}
    size = given.pop("size", None)
    if size is not None and entry.image_size not in (None, size):
        sides = f"image_size is {_sides(entry.image_size)}, but preprocess.size is {_sides(size)}"
        raise UsageError(f"{where}: {sides}. Give one of them.")
    given |= {"image_size": _sides(entry.image_size or size), "context_length": entry.context_length}
    return tuple((key, value) for key, value in sorted(given.items()) if value is not None)


def _sides(size: tuple[int, int] | None) -> int | tuple[int, int] | None:
    """A size as architectures write it: one number where both are equal."""
    return size[0] if size and size[0] == size[1] else size


def _of_zoo(row: zoo.Checkpoint) -> ModelSpec:
    return ModelSpec(row.name, "hf" if row.pretrained.startswith(HF_PREFIX) else "tag", row.arch, row.pretrained)


def _of_architecture(arch: str, pretrained: str, where_arch: str, where: str) -> ModelSpec:
    arch = arch.replace("/", "-")  # open_clip takes ViT-B/32 as well
    if arch not in zoo.architectures() and not _newer_open_clip_has(arch):
        raise UsageError(
            f"{where_arch}'{arch}' is not an architecture of open_clip.{suggest(arch, zoo.architectures())} "
            "`clipeval list models` shows those with public checkpoints."
        )
    tag = zoo.clean_tag(pretrained)
    if row := zoo.checkpoints().get((arch, tag)):
        if not row.activation_matches:
            raise UsageError(f"{where}{wrong_activation(arch, tag, row.quick_gelu)}")
        return _of_zoo(row)
    if pretrained.startswith(HF_PREFIX):
        if not _FILE.fullmatch(pretrained):
            raise UsageError(f"{where}'{pretrained}' is not of the form hf://ORG/REPO[@REV]/FILE.")
        return ModelSpec(f"{arch},{pretrained}", "hf", arch, pretrained)
    path = Path(pretrained)
    if path.is_file():
        return ModelSpec(f"{arch},{path.as_posix()}", "file", arch, path.as_posix(), str(path))
    if _newer_open_clip_has(arch, tag):
        return ModelSpec(f"{arch},{tag}", "tag", arch, tag)
    raise UsageError(where + _why_not_pretrained(arch, pretrained))


def _why_not_pretrained(arch: str, pretrained: str) -> str:
    if not pretrained:
        return f"which checkpoint of {arch}? Write '{arch},TAG' or '{arch},FILE'."
    if "://" in pretrained:
        return (
            f"'{pretrained}': of addresses, only hf://ORG/REPO[@REV]/FILE is read. Download the file and give its path."
        )
    if Path(pretrained).is_dir():
        return f"'{pretrained}' is a folder; a checkpoint file is needed after '{arch},'. Or use local-dir:{pretrained}"
    if "/" in pretrained or pretrained.endswith(_WEIGHT_SUFFIXES):
        return f"the file '{pretrained}' does not exist."
    tag = zoo.clean_tag(pretrained)
    hint = suggest(tag, zoo.tags(arch))
    others = [name for name, other in zoo.checkpoints() if other == tag]
    if not hint and others:
        hint = f" It is one of {', '.join(others)}."
    return f"'{pretrained}' is not a tag of {arch}.{hint or ' `clipeval list models` shows all tags.'}"


def wrong_activation(arch: str, pretrained: str, quick_gelu: bool) -> str:
    """The message for weights under an architecture with another activation than they were trained with."""
    trained, other = ("QuickGELU", "GELU") if quick_gelu else ("GELU", "QuickGELU")
    return (
        f"'{pretrained}' was trained with {trained}, but {arch} computes {other}, which gives wrong results without an "
        f"error. Use {zoo.other_activation(arch)},{pretrained}"
    )


def _newer_open_clip_has(arch: str, tag: str = "") -> bool:
    """Whether an open_clip other than the one the shipped tables were built from knows the architecture or tag."""
    built_from = next(iter(zoo.architectures().values())).open_clip
    if metadata.version("open_clip_torch") == built_from:
        return False
    from clipeval.models import library

    return library.is_known(arch, tag)


def _of_hub(word: str, where: str) -> ModelSpec:
    if not _REPOSITORY.fullmatch(word):
        raise UsageError(f"{where}'{word}' is not of the form {HUB_PREFIX}ORG/NAME[@REV].")
    return ModelSpec(word, "hub", pretrained=word)


def repository_of(pretrained: str) -> tuple[Repository, str]:
    """The repository that ``hf-hub:ORG/NAME[@REV]`` or ``hf://ORG/REPO[@REV]/FILE`` names, and the file, if any."""
    match = _FILE.fullmatch(pretrained) or _REPOSITORY.fullmatch(pretrained)
    assert match, pretrained
    parts = match.groupdict()
    revision = unquote(parts["revision"] or "")
    return Repository("model", parts["name"], "" if revision == "main" else revision), parts.get("file", "")


def _of_folder(word: str, where: str) -> ModelSpec:
    path = Path(word.removeprefix(LOCAL_PREFIX))
    if not (path / "open_clip_config.json").is_file():
        raise UsageError(f"{where}'{word}': the folder '{path}' {_no_open_clip(path)}")
    name = LOCAL_PREFIX + path.as_posix()
    return ModelSpec(name, "local-dir", pretrained=name, path=str(path))


def _no_open_clip(folder: Path) -> str:
    """What a folder is that open_clip did not write."""
    try:
        kind = json.loads(read_regular(folder / "config.json", _CONFIG_BYTES))["model_type"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return "has no file open_clip_config.json."
    return (
        f"is a transformers folder (its config.json says model_type '{kind!s:.40}'), and has no open_clip_config.json, "
        "without which a model of open_clip is not known."
    )


def _of_paths(word: str, where: str, names: Sequence[str], config_path: str) -> list[ModelSpec]:
    if glob.has_magic(word):
        matches = sorted(glob.glob(word), key=_natural_order)  # noqa: PTH207 Path.glob takes no absolute pattern
        if not matches:
            raise UsageError(f"{where}no file matches '{word}'.")
        return [_of_trained(Path(match), where) for match in matches]
    path = Path(word)
    if path.exists():
        return [_of_trained(path, where)]
    if "/" in word or word.endswith(_WEIGHT_SUFFIXES):
        raise UsageError(f"{where}the file or run folder '{word}' does not exist.")
    if word in zoo.architectures():
        example = (zoo.tags(word) or ["FILE"])[0]
        raise UsageError(f"{where}which checkpoint of {word}? Write '{word},TAG' or '{word},FILE', as {word},{example}")
    raise UsageError(
        f"{where}'{word}' is neither a model nor a zoo of {config_path} nor a file."
        f"{suggest(word, [*names, *zoo.architectures()])} Zoos: {', '.join(dict.fromkeys([*names, *zoo.ZOOS]))}."
    )


def _of_trained(path: Path, where: str) -> ModelSpec:
    """A checkpoint of clipeval-train: its file, or the run folder that stands for its newest checkpoint."""
    name = path.as_posix()
    if path.is_dir():
        latest = path / "latest"
        if not latest.is_file():
            if (path / "config.json").is_file() and not (path / "open_clip_config.json").is_file():
                raise UsageError(f"{where}'{name}' {_no_open_clip(path)}")
            hint = f" Use {LOCAL_PREFIX}{name}" if (path / "open_clip_config.json").is_file() else ""
            raise UsageError(f"{where}'{name}' holds no run of clipeval-train: it has no file 'latest'.{hint}")
        try:
            path = path / read_regular(latest, _LATEST_BYTES).decode("utf-8").strip()
            found = path.is_file()
        except (OSError, ValueError) as error:
            raise UsageError(f"{where}'{name}/latest' does not hold the path of a checkpoint: {error}.") from error
        if not found:
            raise UsageError(f"{where}'{name}/latest' points to '{path.as_posix()}', which does not exist.")
    elif path.suffix != ".pt":
        raise UsageError(
            f"{where}'{name}' is not a checkpoint of clipeval-train (a .pt file). "
            f"For other files say the architecture: ViT-B-32,{name}"
        )
    return ModelSpec(name, "trained", pretrained=name, path=str(path))


def _natural_order(text: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", text)]

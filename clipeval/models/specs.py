"""MODEL specs: from what a user writes to a list of checkpoints. Nothing is read but names and file names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

from clipeval.config import Config, ModelEntry
from clipeval.errors import UsageError, suggest
from clipeval.models import functions, places, zoo
from clipeval.models.places import HF_PREFIX, LOCAL_PREFIX, TRANSFORMERS_PREFIX
from clipeval.models.spec import ModelSpec
from clipeval.paths import with_home

_OVERRIDES = ("source", "source_family", "unique_samples", "samples_seen", "samples_seen_from")


def resolve(words: Sequence[str], config: Config, *, allow_python: bool = False) -> list[ModelSpec]:
    """The checkpoints that ``words`` name, in order and without repetitions; no words: ``config.models``.

    ``allow_python``: whether the configuration may name functions, too. Raises UsageError that says which word or which
    place in the configuration is wrong and what was probably meant.
    """
    resolver = _Resolver(config, allow_python)
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


_PREFIXES = {
    places.HUB_PREFIX: places.of_hub,
    LOCAL_PREFIX: places.of_folder,
    TRANSFORMERS_PREFIX: places.of_transformers,
}


class _Resolver:
    """Looks words up in one configuration. ``where`` is the place in that file, for messages, or empty."""

    def __init__(self, config: Config, allow_python: bool) -> None:
        self._config, self._allow_python = config, allow_python
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
        if forced and (other := next((spec for spec in specs if spec.kind in ("transformers", "python")), None)):
            raise UsageError(f"{where}.{forced[0][0]}: means nothing for {other.name}, which makes its own input.")
        return [replace(spec, overrides=overrides, forced=forced) for spec in specs]

    def word(self, word: str, where: str, look_up: bool = True) -> list[ModelSpec]:
        """The checkpoints one word names: a model or zoo by name (unless ``look_up`` is off), or a MODEL spec."""
        if look_up and word in self._config.zoos:
            return self._zoo(word)
        if look_up and word in self._models:
            return self.entry(*self._models[word])
        if word == zoo.TRANSFORMERS:
            return [places.of_transformers(TRANSFORMERS_PREFIX + name, where) for name in zoo.repositories()]
        if word in zoo.ZOOS:
            return [_of_zoo(row) for row in zoo.members(word)]
        if "\0" in word:
            raise UsageError(f"{where}{word!r:.200} holds a NUL character, which no name of a file or model does.")
        with _looking_up(word, where):
            return self._address(_with_home(word), where)

    def _address(self, word: str, where: str) -> list[ModelSpec]:
        for prefix, read in _PREFIXES.items():
            if word.startswith(prefix):
                return [read(word, where)]
        if functions.is_one(word):
            return [functions.of_word(word, where, self._allow_python)]
        if "," in word and not Path(word).exists():
            arch, _, pretrained = word.partition(",")
            return [_of_architecture(arch, pretrained, where, where)]
        return places.of_paths(word, where, [*self._config.zoos, *self._models, *zoo.NAMES], self._config.path)

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
    for start in (LOCAL_PREFIX, TRANSFORMERS_PREFIX, word.partition(",")[0] + "," if "," in word else ""):
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
        if not places.is_file_of_hub(pretrained):
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
    if "/" in pretrained or pretrained.endswith(places.WEIGHT_SUFFIXES):
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

"""From the words after ``-d`` to named data sets."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from clipeval import digest, extensions, vocabulary
from clipeval.config import Config, DatasetEntry
from clipeval.datasets.prompts import is_file, read_file
from clipeval.errors import UsageError, few, suggest
from clipeval.paths import with_home
from clipeval.remote.origin import public

SCHEMES = {
    "wds": "wds:PATH_OR_URL",
    "hf": "hf:NAME_OR_PATH[:CONFIG][@REV]",
    "folder": "folder:PATH",
    "clip_benchmark": "clip_benchmark:NAME[@LANGUAGE]",
    "builtin": "builtin:NAME",
}
"""Scheme -> the form of its DATASET specs."""

_SPEC_LIMIT = 100_000
_NAME_LIMIT = 120

REMOTE_SCHEMES = ("http", "https", "hf", "s3", "gs")

_NATIVE_SPLITS: dict[str, dict[str, str | None]] = {
    "pets": {"train_split": "trainval"},
    "dtd": {"val_split": "val"},
    "flowers": {"val_split": "val"},
    "pcam": {"val_split": "val"},
    "fgvc_aircraft": {"val_split": "val"},
    "renderedsst2": {"val_split": "val"},
    "country211": {"val_split": "valid"},
    "sun397": {"train_split": None},
    "caltech101": {"train_split": None},
    "eurosat": {"train_split": None},
    "imagenetv2": {"train_split": None},
    "imagenet_sketch": {"train_split": None},
    "imagenet-a": {"train_split": None},
    "imagenet-r": {"train_split": None},
    "imagenet-o": {"train_split": None},
    "objectnet": {"train_split": None},
}
"""Where CLIP_benchmark's own data sets have other splits than ``train`` and ``test``."""

_FACTS_OF_THE_DATA = {"n", "chance", "main_metric", "tasks", "train_split", "val_split"}


@dataclass(frozen=True)
class Selection:
    """What a command line selects: data sets by name, in order, and the suites that were asked for by name."""

    datasets: dict[str, DatasetEntry]
    suites: tuple[str, ...]
    notes: tuple[str, ...] = ()
    """What words were taken to mean, a sentence each."""

    def with_prompts(self, prompts: str | None) -> Selection:
        """The same with this prompt set in place of what each entry says; None: as they are. Raises UsageError."""
        if prompts is None:
            return self
        if is_file(prompts):
            read_file(prompts)
        entries = {name: entry.model_copy(update={"prompts": prompts}) for name, entry in self.datasets.items()}
        return replace(self, datasets=entries)


def resolve(words: Sequence[str], config: Config) -> Selection:
    """The data sets that ``words`` name; each word is a data set or suite of ``config``, or a DATASET spec.

    Raises UsageError for an unknown word, for two different data sets with one name, and for a path or URL that would
    run a command. No message holds a secret of a URL.
    """
    try:
        return _resolve(words, config)
    except UsageError as error:
        raise UsageError(public(str(error))) from error


def _resolve(words: Sequence[str], config: Config) -> Selection:
    chosen: dict[str, DatasetEntry] = {}
    suites: list[str] = []
    notes: list[str] = []
    for asked in words:
        word = _known_as(asked, config)
        if word != asked:
            notes.append(f"-d {asked}: {word} is meant")
        if _is_suite(word, config):
            suites.append(word)
            named = _suite_members(word, config)
        else:
            entry = _entry(word, config)
            named = _from_spec(word, config) if entry is None else {word: entry}
        for name, entry in named.items():
            split_spec(entry.spec)
            if chosen.setdefault(name, entry) != entry:
                raise UsageError(
                    f"'{chosen[name].spec}' and '{entry.spec}' would both be called '{name}' in the results. "
                    f"Give them names of their own in benchmarks.yaml, under datasets:"
                )
    return Selection(chosen, tuple(dict.fromkeys(suites)), tuple(dict.fromkeys(notes)))


def _known_as(word: str, config: Config) -> str:
    """A word, or what a data set that people call so is called here."""
    longer = vocabulary.ALIASES.get(word, word)
    return word if word in config.datasets or word in config.suites or longer not in config.datasets else longer


def split_spec(spec: str) -> tuple[str, str]:
    """A DATASET spec as its scheme and the rest, ``~`` as the home folder; of another package's kind as it is written.

    Raises UsageError for another form or one that runs a command.
    """
    scheme, colon, reference = spec.partition(":")
    if "\0" in spec or len(spec) > _SPEC_LIMIT:
        raise UsageError(f"'{spec:.80}' is not a DATASET spec: it is too long, or holds a character of code 0.")
    if not colon or not is_scheme(scheme) or not reference:
        forms = {**SCHEMES, **brought()}
        raise UsageError(f"'{spec}' is not a DATASET spec.{suggest(scheme, forms)} Forms: {', '.join(forms.values())}.")
    if scheme not in SCHEMES:
        return scheme, reference
    refuse_commands(reference, spec)
    return scheme, with_home(reference)


def is_scheme(word: str) -> bool:
    """Whether a DATASET spec may begin with ``word``."""
    return word in SCHEMES or word in extensions.named("clipeval.datasets")


def brought() -> dict[str, str]:
    """The schemes of other packages, each with the form of its specs."""
    return {scheme: f"{scheme}:REFERENCE" for scheme in extensions.named("clipeval.datasets") if scheme not in SCHEMES}


def refuse_commands(text: str, where: str) -> None:
    """Raise UsageError when a path, URL or list of them names a command (``pipe:``) or an unknown URL scheme."""
    if re.search(r"\bpipe:", text, re.IGNORECASE):
        raise UsageError(
            f"refused '{where}': pipe: runs a command, and a data set may not; nothing was executed. "
            f"Download the files and give their path, or give an https URL."
        )
    for scheme in re.findall(r"([A-Za-z][A-Za-z0-9+.-]{0,30})://", text):
        if scheme.lower() not in REMOTE_SCHEMES:
            raise UsageError(
                f"refused '{where}': '{scheme}://' is not a URL scheme that clipeval reads; nothing was executed. "
                f"It reads paths and {', '.join(REMOTE_SCHEMES)}."
            )


def _entry(name: str, config: Config) -> DatasetEntry | None:
    """The entry of a data set, or of one in a language. Raises UsageError for a language that it is not there in."""
    entry = config.dataset(name)
    if entry and entry.languages and name not in config.datasets and entry.language not in entry.languages:
        base, _, language = name.rpartition("@")
        close = suggest(language, entry.languages)
        raise UsageError(
            f"{base} is not there in the language '{language:.80}'.{close} It is in: {few(entry.languages)}."
        )
    return entry


def _is_suite(word: str, config: Config) -> bool:
    """A word that names both is the data set, unless the suite is that data set in all its languages."""
    if word not in config.suites:
        return False
    return word not in config.datasets or all(name.startswith(f"{word}@") for name in config.members(word))


def _suite_members(suite: str, config: Config) -> dict[str, DatasetEntry]:
    members = {}
    for index, name in enumerate(config.members(suite)):
        entry = _entry(name, config)
        if entry is None:
            raise UsageError(
                f"{config.path}: suites.{suite}.members[{index}]: '{name}' is not a data set of this file."
                f"{suggest(name, config.datasets)} See: clipeval list datasets"
            )
        members[name] = entry
    return members


def _from_spec(word: str, config: Config) -> dict[str, DatasetEntry]:
    if not (":" in word and is_scheme(word.partition(":")[0])):
        refuse_commands(word, word)
        forms = {**SCHEMES, **brought()}
        choices = [*config.datasets, *config.suites, *vocabulary.ALIASES, *(f"{scheme}:" for scheme in forms)]
        raise UsageError(
            f"'{word}' is neither a data set, a suite nor a DATASET spec.{suggest(word, choices)} "
            f"See: clipeval list datasets. Specs: {', '.join(forms.values())}."
        )
    scheme, reference = split_spec(word)
    name = _name(scheme, reference, config)
    facts: dict[str, object] = {"spec": word}
    known = _entry(name, config) if scheme in ("clip_benchmark", "builtin") else None
    if known is not None:  # the same data by another way
        facts |= known.model_dump(include=_FACTS_OF_THE_DATA)
    if scheme == "builtin" and known is not None:
        facts["fingerprint"] = known.fingerprint
    if scheme == "clip_benchmark":
        facts |= _NATIVE_SPLITS.get(reference, {})
    return {name: DatasetEntry.model_validate(facts)}


def _name(scheme: str, reference: str, config: Config) -> str:
    """What a raw spec is called in results: CLIP_benchmark's name where there is one, else the last part of the path.

    Never a path that leaves a folder: results are written to files called after it.
    """
    if scheme in ("clip_benchmark", "builtin"):
        parts = PurePosixPath(reference.removeprefix("wds/").removesuffix("@en")).parts
        return "/".join(safe_name(part) for part in parts)
    if "://" in reference:
        reference = re.split(r"[?#]", public(reference))[0]
    if scheme == "hf" and not os.path.exists(reference):  # noqa: PTH110  never raises, whatever the name is
        reference = reference.split("@")[0]
    reference = re.sub(r"/(tree|resolve|raw|blob)/[^/]+/?$", "", reference.split("::")[0])  # a branch of a repository
    path = PurePosixPath(reference) if "://" in reference else Path(reference).absolute()
    without_range = re.sub(r"\{[^}]*\}", "", path.name.removesuffix(".tar").removesuffix(".parquet")).strip("-_.")
    cleaned = safe_name(without_range or path.parent.name).removeprefix("wds_")
    slashed = {known.replace("/", "-"): known for known in config.datasets}
    return slashed.get(cleaned, cleaned)


def safe_name(part: str) -> str:
    """One component of a name, short and without characters that mean something in a path or a shell."""
    cleaned = re.sub(r"[^A-Za-z0-9_.+@-]+", "_", part).strip(".") or "unnamed"
    return cleaned if len(cleaned) <= _NAME_LIMIT else f"{cleaned[:_NAME_LIMIT]}-{digest.of_value(part)[:8]}"

"""From the words after ``-d`` to named data sets."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from clipeval import digest
from clipeval.config import Config, DatasetEntry
from clipeval.errors import UsageError, suggest
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
    for word in words:
        if word in config.suites and word not in config.datasets:
            suites.append(word)
            named = _suite_members(word, config)
        elif word in config.datasets:
            named = {word: config.datasets[word]}
        else:
            named = _from_spec(word, config)
        for name, entry in named.items():
            split_spec(entry.spec)
            if chosen.setdefault(name, entry) != entry:
                raise UsageError(
                    f"'{chosen[name].spec}' and '{entry.spec}' would both be called '{name}' in the results. "
                    f"Give them names of their own in benchmarks.yaml, under datasets:"
                )
    return Selection(chosen, tuple(dict.fromkeys(suites)))


def split_spec(spec: str) -> tuple[str, str]:
    """A DATASET spec as its scheme and the rest, ``~`` as the home folder.

    Raises UsageError for another form or one that runs a command.
    """
    scheme, colon, reference = spec.partition(":")
    if "\0" in spec or len(spec) > _SPEC_LIMIT:
        raise UsageError(f"'{spec:.80}' is not a DATASET spec: it is too long, or holds a character of code 0.")
    if not colon or scheme not in SCHEMES or not reference:
        raise UsageError(
            f"'{spec}' is not a DATASET spec.{suggest(scheme, SCHEMES)} Forms: {', '.join(SCHEMES.values())}."
        )
    refuse_commands(reference, spec)
    return scheme, with_home(reference)


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


def _suite_members(suite: str, config: Config) -> dict[str, DatasetEntry]:
    members = {}
    for index, name in enumerate(config.suites[suite].members):
        if name not in config.datasets:
            raise UsageError(
                f"{config.path}: suites.{suite}.members[{index}]: '{name}' is not a data set of this file."
                f"{suggest(name, config.datasets)} See: clipeval list datasets"
            )
        members[name] = config.datasets[name]
    return members


def _from_spec(word: str, config: Config) -> dict[str, DatasetEntry]:
    refuse_commands(word, word)
    if word.partition(":")[0] not in SCHEMES or ":" not in word:
        choices = [*config.datasets, *config.suites, *(f"{scheme}:" for scheme in SCHEMES)]
        raise UsageError(
            f"'{word}' is neither a data set, a suite nor a DATASET spec.{suggest(word, choices)} "
            f"See: clipeval list datasets. Specs: {', '.join(SCHEMES.values())}."
        )
    scheme, reference = split_spec(word)
    name = _name(scheme, reference, config)
    facts: dict[str, object] = {"spec": word}
    if scheme in ("clip_benchmark", "builtin") and name in config.datasets:  # the same data by another way
        facts |= config.datasets[name].model_dump(include=_FACTS_OF_THE_DATA)
    if scheme == "builtin" and name in config.datasets:
        facts["fingerprint"] = config.datasets[name].fingerprint
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

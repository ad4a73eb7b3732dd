"""Class names and prompt templates: CLIP_benchmark's own, the same with corrected class names, or a user's file."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from clipeval.datasets import prompt_files
from clipeval.datasets.base import Prompts
from clipeval.datasets.prompt_files import FilePrompts, check_classes, check_templates
from clipeval.errors import DataError, UsageError, few, suggest

PROMPT_SETS = ("default", "clip_benchmark")
"""``clip_benchmark``: exactly its class names and templates. ``default``: the same with corrected class names."""

GENERIC_TEMPLATES = ("a photo of a {c}.", "a picture of a {c}.", "a close-up photo of a {c}.", "an image of a {c}.")
"""For data sets that neither bring templates nor are known to CLIP_benchmark."""

_LISTS = {
    "vtab/caltech101": "caltech101_vtab",
    "imagenet1k-unverified": "imagenet1k",
    "imagenetv2": "imagenet1k",
    "imagenet_sketch": "imagenet1k",
}
"""Data sets whose list of class names CLIP_benchmark keeps under another name."""

_WITH_IMAGENET_TEMPLATES = {*_LISTS, "imagenet-a", "imagenet-o", "imagenet-r", "objectnet"}


def load_prompts(
    dataset_name: str,
    prompt_set: str | None = None,
    language: str = "en",
    classes: Sequence[str] | None = None,
    templates: Sequence[str] | None = None,
    own_language: str = "en",
) -> Prompts | None:
    """The prompts of a data set, or None when nobody knows its class names.

    ``prompt_set`` is ``default`` (None: the same), ``clip_benchmark`` or the path of a JSON file (``prompt_files``).
    ``classes`` and ``templates`` are what the data set itself brings; they take precedence over CLIP_benchmark's lists
    of their language, ``own_language``, but not over a file. Raises UsageError for an unknown set or a file that cannot
    be used and DataError when class names and data set disagree, a name is empty or the language has no list.
    """
    file = None if prompt_set is None else from_file(prompt_set, dataset_name)
    if file and file.classes and language != own_language:
        raise UsageError(f"{dataset_name}: language: has no effect beside the file of prompts: '{prompt_set}'.")
    if file and file.classes:
        classes = _as_many(dataset_name, str(prompt_set), file.classes, classes)
    elif language != own_language:
        classes, templates = _translated(dataset_name, language, classes), None
    if classes is None:
        classes = _lookup("classnames", dataset_name, language)
    if classes is None:
        return None
    if file and file.per_class:
        return _written(dataset_name, str(prompt_set), file, classes)
    if file and file.templates:
        templates = file.templates
    if templates is None:
        templates = _lookup("zeroshot_classification_templates", dataset_name, language)
    if templates is None:
        known = prompt_set == "clip_benchmark" or file or dataset_name in _WITH_IMAGENET_TEMPLATES
        templates = _packaged(language, "zeroshot_classification_templates")["imagenet1k"] if known else None
    if prompt_set in (None, "default"):
        classes = _corrected(classes)
    if prompt_set != "clip_benchmark":
        check_classes(classes, dataset_name, DataError)
    name = file.name if file else prompt_set or "default"
    prompts = Prompts(name, tuple(classes), tuple(templates or GENERIC_TEMPLATES))
    check_templates(prompts.templates, dataset_name, DataError)
    return prompts


def from_file(prompt_set: str, dataset_name: str) -> FilePrompts | None:
    """What the file that ``prompt_set`` is the path of says of a data set; None for the name of a set.

    Raises UsageError, DataError.
    """
    if not is_file(prompt_set):
        return None
    found = read_file(prompt_set)
    return prompt_files.of_dataset(found, re.sub("@[^@]*$", "", dataset_name), prompt_set)


def read_file(path: str) -> FilePrompts | dict[str, FilePrompts]:
    """A file of prompts. Raises UsageError."""
    hint = f" Or name one of the prompt sets {', '.join(PROMPT_SETS)}.{suggest(path, PROMPT_SETS)}"
    return prompt_files.read(path, packaged_folder(), hint)


def _as_many(dataset_name: str, path: str, names: Sequence[str], classes: Sequence[str] | None) -> Sequence[str]:
    """The names of a file in the order of the data set's ``classes``. Raises DataError for other numbers of them."""
    if classes is None:
        return names
    if len(classes) != len(names):
        raise DataError(
            f"{dataset_name}: class list and labels disagree: {path} names {len(names)} classes, "
            f"the data set has {len(classes)}."
        )
    return aligned(classes, names, f"{dataset_name}: {path}")


def _written(dataset_name: str, path: str, file: FilePrompts, classes: Sequence[str]) -> Prompts:
    """Prompts that a file has for each class by its name. Raises DataError for a class that it has none for."""
    by_name = file.per_class or {}
    if without := [name for name in classes if name not in by_name]:
        close = suggest(without[0], by_name)
        raise DataError(
            f"{dataset_name}: {path} has no prompts for {len(without)} of {len(classes)} classes: "
            f"{few(map(repr, without))}.{close}"
        )
    return Prompts(file.name, tuple(classes), (), tuple(tuple(by_name[name]) for name in classes))


def is_file(prompt_set: str | None) -> bool:
    """Whether the name of a prompt set is the path of one."""
    return prompt_set is not None and prompt_set not in PROMPT_SETS


def aligned(own: Sequence[str], names: Sequence[str], where: str) -> list[str]:
    """``names``, a list in somebody's order, in the order of the classes that they are for, called ``own``.

    Where they are the classes' own names, written a little differently, each is that of its class. Else it is taken for
    the same order, but for classes that are numbers and sorted as texts (0, 1, 10, 2): of those 0 is the first name, or
    1 where there is no 0. Raises DataError for other numbered classes in an order that is not that
    of their numbers: nobody knows which of the two orders the names have. ``where`` names the list in messages.
    """
    by_name = {_plain(name): name for name in names}
    if len(by_name) == len(names) and [*map(_plain, own)] != [*by_name] and {*map(_plain, own)} == {*by_name}:
        return [by_name[_plain(name)] for name in own]
    numbers = [_number_in(name) for name in own]
    found = [number for number, _ in numbers]
    if len({rest for _, rest in numbers}) > 1 or None in found or found == sorted(found, key=_number):
        return list(names)
    start = 0 if 0 in found else 1
    if sorted(found, key=_number) != list(range(start, start + len(names))) or numbers[0][1] != "":
        raise DataError(
            f"{where}: its names may be in the order of the numbers of the classes, or in the one of the classes, "
            f"{few(own, 4)}. Give the classes numbers with leading zeros, all equally long."
        )
    return [names[_number(number) - start] for number in found]


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", name).strip().casefold()


def _number_in(name: str) -> tuple[int | None, str]:
    """The number of a class that is called by one, and what is around it."""
    found = re.fullmatch(r"(\D*)([0-9]{1,9})(\D*)", name)
    return (int(found[2]), f"{found[1]}#{found[3]}".removesuffix("#")) if found else (None, name)


def _number(number: int | None) -> int:
    return -1 if number is None else number


def _translated(dataset_name: str, language: str, classes: Sequence[str] | None) -> list[str]:
    """CLIP_benchmark's class names in a language. Raises DataError where it has none, or not as many."""
    names = _lookup("classnames", dataset_name, language)
    if names is None:
        there = ", ".join(languages_of(dataset_name.removesuffix(f"@{language}")))
        raise DataError(
            f"{dataset_name}: CLIP_benchmark has no class names of it in the language '{language}', only in: {there}. "
            "Or give the names in a file: prompts:"
        )
    if classes is not None and len(names) != len(classes):
        raise DataError(
            f"{dataset_name}: class list and labels disagree: CLIP_benchmark has {len(names)} class names in the "
            f"language '{language}', the data set {len(classes)}."
        )
    return names


def _lookup(kind: str, dataset_name: str, language: str) -> list[str] | None:
    lists = _packaged(language, kind)
    dataset_name = dataset_name.removesuffix(f"@{language}")
    for name in (_LISTS.get(dataset_name, dataset_name), dataset_name.removeprefix("vtab/")):
        if name in lists:
            return list(lists[name])
    return None


def _packaged(language: str, kind: str) -> dict[str, Any]:
    """One of CLIP_benchmark's data files, found without importing it (its imports take seconds)."""
    languages = _languages(kind)
    if language not in languages:
        raise DataError(
            f"CLIP_benchmark has no class names in the language '{language}'.{suggest(language, languages)} "
            f"It has: {', '.join(languages)}."
        )
    return packaged_file(f"{language}_{kind}.json")


def languages_of(dataset_name: str) -> list[str]:
    """The languages that CLIP_benchmark can classify a data set in; English always."""
    others = [code for code in _languages("classnames") if code != "en"]
    return ["en", *(code for code in others if _lookup("classnames", dataset_name, code) is not None)]


def _languages(kind: str) -> list[str]:
    return sorted(path.name.split("_")[0] for path in packaged_folder().glob(f"*_{kind}.json"))


@cache
def packaged_folder() -> Path:
    """Where CLIP_benchmark keeps its class names, without importing it."""
    package = importlib.util.find_spec("clip_benchmark")
    assert package is not None
    assert package.submodule_search_locations
    return Path(package.submodule_search_locations[0]) / "datasets"


@cache
def packaged_file(name: str) -> dict[str, Any]:
    """The content of one of CLIP_benchmark's JSON files."""
    return dict(json.loads((packaged_folder() / name).read_text("utf-8")))


def _corrected(classes: Sequence[str]) -> list[str]:
    result = list(classes)
    for correction in _corrections():
        found = {int(index): name for index, name in correction["found"].items()}
        if len(classes) == correction["classes"] and all(classes[index] == name for index, name in found.items()):
            for index, name in correction["corrected"].items():
                result[int(index)] = name
    return result


@cache
def _corrections() -> list[dict[str, Any]]:
    text = (resources.files("clipeval.datasets") / "prompts" / "corrections.json").read_text("utf-8")
    return list(json.loads(text))

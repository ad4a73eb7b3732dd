"""Class names and prompt templates: CLIP_benchmark's own, the same with corrected class names, or a user's file."""

from __future__ import annotations

import importlib.util
import json
import string
from collections.abc import Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from clipeval.datasets.base import Prompts
from clipeval.errors import DataError, UsageError, suggest
from clipeval.paths import expand

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
) -> Prompts | None:
    """The prompts of a data set, or None when nobody knows its class names.

    ``prompt_set`` is ``default`` (None means the same), ``clip_benchmark`` or the path of a JSON file
    {"classes": [...], "templates": [...]}. ``classes`` and ``templates`` are what the data set itself brings; they
    take precedence over CLIP_benchmark's lists. Raises UsageError for an unknown set or a file that cannot be used and
    DataError when class names and data set disagree or the language has no list.
    """
    if prompt_set is not None and prompt_set not in PROMPT_SETS:
        return _from_file(dataset_name, prompt_set, classes)
    if classes is None:
        classes = _lookup("classnames", dataset_name, language)
    if classes is None:
        return None
    if templates is None:
        templates = _lookup("zeroshot_classification_templates", dataset_name, language)
    if templates is None:
        known = prompt_set == "clip_benchmark" or dataset_name in _WITH_IMAGENET_TEMPLATES
        templates = _packaged(language, "zeroshot_classification_templates")["imagenet1k"] if known else None
    if prompt_set != "clip_benchmark":
        classes = _corrected(classes)
    prompts = Prompts(prompt_set or "default", tuple(classes), tuple(templates or GENERIC_TEMPLATES))
    _check_templates(prompts.templates, dataset_name, DataError)
    return prompts


def _from_file(dataset_name: str, path: str, classes: Sequence[str] | None) -> Prompts:
    hint = f" Or name one of the prompt sets {', '.join(PROMPT_SETS)}.{suggest(path, PROMPT_SETS)}"
    try:
        document = json.loads(expand(path).read_text("utf-8"))
    except FileNotFoundError as error:
        raise UsageError(f"{dataset_name}: prompts: there is no file '{path}'.{hint}") from error
    except (OSError, ValueError) as error:
        raise UsageError(f"{dataset_name}: prompts: {path} cannot be read as JSON: {error}.{hint}") from error
    lists = [document.get(key) for key in ("classes", "templates")] if isinstance(document, dict) else []
    if not lists or not all(isinstance(x, list) and x and all(isinstance(s, str) for s in x) for x in lists):
        raise UsageError(
            f'{path}: expected {{"classes": ["..."], "templates": ["... {{c}} ..."]}} with lists of strings.'
        )
    prompts = Prompts(Path(path).stem, tuple(document["classes"]), tuple(document["templates"]))
    _check_templates(prompts.templates, path, UsageError)
    if classes is not None and len(classes) != len(prompts.classes):
        raise DataError(
            f"{dataset_name}: class list and labels disagree: {path} names {len(prompts.classes)} classes, "
            f"the data set has {len(classes)}."
        )
    return prompts


def _check_templates(templates: Sequence[str], where: str, kind: type[DataError] | type[UsageError]) -> None:
    for index, template in enumerate(templates):
        try:
            fields = {part[1:] for part in string.Formatter().parse(template) if part[1] is not None}
        except ValueError:
            fields = set()
        if fields != {("c", "", None)}:  # {c:1000000000} would be a gigabyte
            raise kind(
                f"{where}: templates[{index}]: '{template}' must hold {{c}} for the class name and no other braces."
            )


def _lookup(kind: str, dataset_name: str, language: str) -> list[str] | None:
    lists = _packaged(language, kind)
    for name in (_LISTS.get(dataset_name, dataset_name), dataset_name.removeprefix("vtab/")):
        if name in lists:
            return list(lists[name])
    return None


@cache
def _packaged(language: str, kind: str) -> dict[str, Any]:
    """One of CLIP_benchmark's data files, found without importing it (its imports take seconds)."""
    package = importlib.util.find_spec("clip_benchmark")
    assert package is not None
    assert package.submodule_search_locations
    folder = Path(package.submodule_search_locations[0]) / "datasets"
    file = folder / f"{language}_{kind}.json"
    if not file.is_file():
        languages = sorted(path.name.split("_")[0] for path in folder.glob(f"*_{kind}.json"))
        raise DataError(
            f"CLIP_benchmark has no class names in the language '{language}'.{suggest(language, languages)} "
            f"It has: {', '.join(languages)}."
        )
    return dict(json.loads(file.read_text("utf-8")))


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

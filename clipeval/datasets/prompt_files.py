"""Prompts in a user's file: ours for one data set, or CLIP_benchmark's by the names of data sets.

{"classes": ["red fox", ...], "templates": ["a photo of a {c}.", ...]}
{"vtab/pets": ["Abyssinian", ...], ...}                       class names: ``--custom_classname_file``
{"imagenet1k": ["a photo of a {c}.", ...], ...}               templates: ``--custom_template_file``
{"imagenet1k": {"tench": ["A tench is a fish.", ...], ...}}   prompts per class, as they are (CuPL)
"""

from __future__ import annotations

import json
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipeval.errors import DataError, UsageError, few
from clipeval.paths import expand
from clipeval.regular import read_regular

_LIMIT = 256 << 20
_FALLBACK = "imagenet1k"
"""The data set whose templates CLIP_benchmark takes for those that a file has none for."""


@dataclass(frozen=True)
class FilePrompts:
    """What a file says of a data set; None where it says nothing. ``per_class`` are whole prompts by class name."""

    name: str
    classes: Sequence[str] | None = None
    templates: Sequence[str] | None = None
    per_class: Mapping[str, Sequence[str]] | None = None


def read(path: str, packaged: Path, hint: str) -> FilePrompts | dict[str, FilePrompts]:
    """The file's content: of any data set, or by the names of data sets. CLIP_benchmark's own files, in the folder
    ``packaged``, need no path. Raises UsageError; ``hint`` ends the message for a file that is not there."""
    place = expand(path)
    if not place.exists() and (packaged / path).is_file() and Path(path).name == path:
        place = packaged / path
    try:
        document = json.loads(read_regular(place, _LIMIT).decode("utf-8-sig"))
    except FileNotFoundError as error:
        raise UsageError(f"prompts: there is no file '{path}'.{hint}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"prompts: {path} cannot be read as JSON: {error}.{hint}") from error
    stem = place.stem
    if not isinstance(document, dict) or not document or document.keys() & {"classes", "templates"}:
        lists = [document.get(key) for key in ("classes", "templates")] if isinstance(document, dict) else [None]
        if not all(map(_is_texts, lists)):
            raise UsageError(
                f'{path}: expected {{"classes": ["..."], "templates": ["... {{c}} ..."]}} with lists of strings, or '
                "CLIP_benchmark's lists of class names or of templates by data set."
            )
        check_classes(lists[0] or [], path, UsageError)
        check_templates(lists[1] or [], path, UsageError)
        return FilePrompts(stem, *lists)
    return {name: _of_value(stem, value, f"{path}: {name:.80}") for name, value in document.items()}


def of_dataset(found: FilePrompts | dict[str, FilePrompts], name: str, path: str) -> FilePrompts:
    """What a file says of a data set, under CLIP_benchmark's names for it. Raises DataError where it says nothing."""
    if isinstance(found, FilePrompts):
        return found
    for key in (name, f"wds/{name}", name.removeprefix("vtab/"), _FALLBACK):
        if key in found and (key != _FALLBACK or found[key].classes is None or name == _FALLBACK):
            return found[key]
    raise DataError(f"{name}: {path} says nothing of this data set: it is about {few(found)}.")


def _of_value(stem: str, value: Any, where: str) -> FilePrompts:
    if isinstance(value, dict) and value and all(map(_is_texts, value.values())):
        return FilePrompts(stem, per_class=value)
    if not _is_texts(value):
        raise UsageError(f"{where}: expected class names, templates with {{c}}, or lists of prompts by class name.")
    held = ["{c}" in text for text in value]
    if any(held):
        check_templates(value, where, UsageError)
        return FilePrompts(stem, templates=value)
    check_classes(value, where, UsageError)
    return FilePrompts(stem, classes=value)


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(text, str) for text in value)


def check_classes(classes: Sequence[str], where: str, kind: type[DataError] | type[UsageError]) -> None:
    """Raises ``kind`` for an empty class name."""
    for index, name in enumerate(classes):
        if not name.strip():
            raise kind(f"{where}: class name {index + 1} of {len(classes)} is empty.")


def check_templates(templates: Sequence[str], where: str, kind: type[DataError] | type[UsageError]) -> None:
    """Raises ``kind`` for a template that is none."""
    for index, template in enumerate(templates):
        try:
            fields = {part[1:] for part in string.Formatter().parse(template) if part[1] is not None}
        except ValueError:
            fields = set()
        if fields != {("c", "", None)}:  # {c:1000000000} would be a gigabyte
            raise kind(
                f"{where}: templates[{index}]: '{template}' must hold {{c}} for the class name and no other braces."
            )

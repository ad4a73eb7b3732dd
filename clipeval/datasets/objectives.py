"""Class names and templates that are lines ``OBJECTIVE:text``: a classifier for each objective (DataComp's faces)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from clipeval.datasets.base import Prompts
from clipeval.errors import DataError, few

OBJECTIVES = ("race", "gender", "age", "toxic")


def are_lines(lines: Sequence[str] | None) -> bool:
    """Whether each of some lines names one of ``OBJECTIVES`` before its first colon."""
    return bool(lines) and all(line.partition(":")[0] in OBJECTIVES and ":" in line for line in lines or ())


def by_objective(prompts: Prompts | None) -> dict[str, Prompts]:
    """The prompts of each objective, its lines in their order; empty where the class names are no such lines.

    Raises DataError where templates and class names are not of the same objectives.
    """
    if prompts is None or not are_lines(prompts.classes):
        return {}
    classes, templates = _texts(prompts.classes), _texts(prompts.templates)
    if not are_lines(prompts.templates) or set(classes) != set(templates):
        raise DataError(
            f"the class names are lines OBJECTIVE:text of {few(classes)}, and the templates of {few(templates)}: each "
            "objective needs both, in classnames.txt and zeroshot_classification_templates.txt."
        )
    if empty := [name for name, found in classes.items() if not all(text.strip() for text in found)]:
        raise DataError(f"a class name of the objective {few(empty)} is empty.")
    return {name: Prompts(prompts.name, tuple(classes[name]), tuple(templates[name])) for name in classes}


def _texts(lines: Iterable[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in lines:
        objective, _, text = line.partition(":")
        found.setdefault(objective, []).append(text)
    return found

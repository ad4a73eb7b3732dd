"""MODEL specs that name a function: ``python:PACKAGE.MODULE:FUNCTION[?key=value&...]``, or ``NAME:REFERENCE`` of
another package (entry points of the group ``clipeval.models``). They return an encoder of their own making."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from clipeval import extensions
from clipeval.errors import ModelError, UsageError, few
from clipeval.models.spec import ModelSpec

PYTHON = "python"
GROUP = "clipeval.models"
_FORM = f"{PYTHON}:PACKAGE.MODULE:FUNCTION[?key=value&...]"
_FUNCTION = re.compile(r"(?P<address>\w+(?:\.\w+)*:\w+(?:\.\w+)*)(?:\?(?P<values>.*))?", re.DOTALL)


def is_one(word: str) -> bool:
    """Whether a MODEL spec names a function."""
    name, colon, _ = word.partition(":")
    return bool(colon) and (name == PYTHON or name in extensions.named(GROUP))


def of_word(word: str, where: str, allow_python: bool) -> ModelSpec:
    """The spec of a word that ``is_one``. ``where`` is the place in a configuration, or empty: there a function need
    not be allowed. Raises UsageError."""
    name, _, reference = word.partition(":")
    if name == PYTHON:
        if where and not allow_python:
            raise UsageError(
                f"{where}'{word:.300}' names code to run. Where you trust this file, allow it: --allow-python"
            )
        if not _FUNCTION.fullmatch(reference):
            raise UsageError(f"{where}'{word:.300}' is not of the form {_FORM}.")
        _values(word, reference)
    elif not reference:
        raise UsageError(f"{where}'{word:.300}': what of it? Write {name}:REFERENCE.")
    return ModelSpec(word, "python", pretrained=word)


def call_of(spec: ModelSpec) -> tuple[Callable[[], Any], str]:
    """The function of a spec with its arguments, and whose it is, for messages. Raises ModelError where it cannot be
    imported."""
    name, _, reference = spec.pretrained.partition(":")
    if name != PYTHON:
        found = extensions.named(GROUP).get(name)
        if found is None:
            raise ModelError(f"{spec.name}: no installed package brings models called '{name}:' any more.")
        return partial(found.function(ModelError), reference), found.package
    match = _FUNCTION.fullmatch(reference)
    assert match, reference
    here = str(Path.cwd())
    if not {"", here} & set(sys.path):  # as `python -m` does: people name modules of the folder they work in
        sys.path.insert(0, here)
    function = extensions.Extension(spec.name, match["address"], "Python").function(ModelError)
    return partial(function, **_values(spec.name, reference)), match["address"]


def _values(word: str, reference: str) -> dict[str, str]:
    """The keyword arguments behind the question mark, as text."""
    _, _, query = reference.partition("?")
    if not query:
        return {}
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True)
    except ValueError as error:
        raise UsageError(f"'{word:.300}' is not of the form {_FORM}.") from error
    values = dict(pairs)
    if odd := [key for key in values if not key.isidentifier()]:
        raise UsageError(f"'{word:.300}': {few(map(repr, odd))}: no name of a parameter. Write {_FORM}")
    if len(values) < len(pairs):
        raise UsageError(f"'{word:.300}': a key is there twice.")
    return values

"""YAML of many small mappings, as yaml.dump writes it and ten times as fast."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache
from typing import Any

import yaml

_DUMPER: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
_LONGEST = 200
"""Characters of a text that no line is too short for, however deep it stands."""


def as_yaml(document: dict[str, Any]) -> str:
    """A document of mappings with plain keys, lists of mappings, texts and finite numbers, in block style."""
    try:
        return "".join(f"{line}\n" for line in _mapping(document))
    except _Odd:
        return _dumped(document)


class _Odd(Exception):
    """A value whose form depends on where it stands."""


def _dumped(value: Any) -> str:
    return str(yaml.dump(value, Dumper=_DUMPER, sort_keys=False, allow_unicode=True, width=1000))


def _mapping(value: dict[str, Any]) -> Iterator[str]:
    for key, item in value.items():
        if isinstance(item, dict) and item:
            yield f"{key}:"
            yield from (f"  {line}" for line in _mapping(item))
        elif isinstance(item, list) and item:
            yield f"{key}:"
            for entry in item:
                yield from (f"{'  ' if number else '- '}{line}" for number, line in enumerate(_mapping(entry)))
        else:
            yield f"{key}: {_scalar(item)}"


def _scalar(value: Any) -> str:
    if type(value) is float and math.isfinite(value):
        shown = repr(value)
        return shown.replace("e", ".0e") if "." not in shown else shown  # 1e-05 would be a text
    if type(value) is int or value in ([], {}):
        return str(value)
    if not isinstance(value, str) or len(value) > _LONGEST or "\n" in value:
        raise _Odd
    return _text(value)


@cache
def _text(value: str) -> str:
    return _dumped({"k": value})[len("k: ") : -1]

"""Rules for what a configuration may hold: in words and as tests, with the file, key and value in every refusal."""

from __future__ import annotations

import json
import math
import re
import reprlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipeval.errors import ModelError, first_line
from clipeval.regular import read_regular

_CONFIG_BYTES = 1 << 24
_MOST_NODES, _DEEPEST = 1_000_000, 64


@dataclass(frozen=True)
class Rule:
    """What a key may hold, in words and as a test."""

    allowed: str
    holds: Callable[[Any], bool]


def whole(least: int, most: int) -> Rule:
    """A whole number within bounds."""
    return Rule(f"a whole number from {least:,} to {most:,}", lambda value: is_whole(value) and least <= value <= most)


def real(least: float, most: float) -> Rule:
    """A finite number within bounds."""
    return Rule(f"a number from {least:g} to {most:g}", lambda value: _is_real(value) and least <= value <= most)


def text(most: int) -> Rule:
    """A text of bounded length."""
    return Rule(f"a text of at most {most:,} characters", lambda value: isinstance(value, str) and len(value) <= most)


def one_of(*values: str) -> Rule:
    """One of some words."""
    return Rule(f"one of {', '.join(values)}", lambda value: isinstance(value, str) and value in values)


def matching(pattern: str, allowed: str) -> Rule:
    """A text that a pattern matches whole."""
    return Rule(allowed, lambda value: isinstance(value, str) and re.fullmatch(pattern, value) is not None)


def list_of(rule: Rule, length: int) -> Rule:
    """A list of a length, each by one rule."""
    return Rule(
        f"a list of {length}, each {rule.allowed}",
        lambda value: isinstance(value, list | tuple) and len(value) == length and all(map(rule.holds, value)),
    )


def either(*rules: Rule) -> Rule:
    """Whatever one of several rules allows."""
    allowed = ", or ".join(rule.allowed for rule in rules)
    return Rule(allowed, lambda value: any(rule.holds(value) for rule in rules))


def mapping(rules: dict[str, Rule]) -> Rule:
    """A mapping of known keys, each by its rule."""
    inside = "; ".join(f"{key}: {rule.allowed}" for key, rule in rules.items())
    return Rule(
        f"a mapping ({inside})",
        lambda value: (
            isinstance(value, dict) and all(key in rules and rules[key].holds(item) for key, item in value.items())
        ),
    )


def is_whole(value: Any) -> bool:
    """Whether a value is a whole number, and no truth value."""
    return isinstance(value, int) and not isinstance(value, bool)


def _is_real(value: Any) -> bool:
    return is_whole(value) or (isinstance(value, float) and math.isfinite(value))


NONE = Rule("nothing (null)", lambda value: value is None)
FLAG = Rule("true or false", lambda value: isinstance(value, bool))
ANY_MAPPING = Rule("a mapping", lambda value: isinstance(value, dict))
SIDE = whole(1, 4096)
LAYERS = whole(1, 100)
MOST_PATCHES = 1 << 14


def check(config: Any, rules: dict[str, Rule], where: str, *, others: bool = False) -> None:
    """Raises ModelError for the first key of ``config`` that breaks its rule, or has none unless ``others`` may be."""
    if not isinstance(config, dict):
        raise ModelError(f"{where}: {shortened(config)}; expected a mapping.")
    check_size(config, where)
    for key, value in config.items():
        rule = rules.get(key)
        if rule is None and not others:
            raise ModelError(f"{where}.{shortened(key).strip(chr(39))}: unknown key. Allowed: {', '.join(rules)}.")
        if rule is not None:
            require(value, rule, f"{where}.{key}")


def require(value: Any, rule: Rule, place: str) -> None:
    """Raises ModelError for a value that its rule does not allow; ``place`` is where it stands."""
    if not rule.holds(value):
        raise ModelError(f"{place}: {shortened(value)}; expected {rule.allowed}.")


def check_size(value: Any, where: object) -> None:
    """Raises ModelError for a value of so many or so deeply nested parts that walking through it would not end: a list
    that holds itself twice, 27 times over, has 2^27."""
    left, waiting = _MOST_NODES, [(value, 0)]
    while waiting:
        item, depth = waiting.pop()
        parts = item.values() if isinstance(item, dict) else item if isinstance(item, list | tuple | set) else ()
        left -= len(parts)
        if left < 0 or depth > _DEEPEST:
            raise ModelError(
                f"{where}: {shortened(value)} has more than {_MOST_NODES:,} parts, or more than {_DEEPEST} levels."
            )
        waiting.extend((part, depth + 1) for part in parts)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file that holds a mapping. Raises ModelError, also for one that is too large or no regular file."""
    try:
        return read_json_text(read_regular(path, _CONFIG_BYTES), path)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror or error}.") from error


def read_json_text(data: bytes, path: Path) -> dict[str, Any]:
    """``data``, the bytes of ``path``, as a JSON mapping. Raises ModelError."""
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path}: not a readable JSON file: {first_line(error):.200}") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path}: {shortened(content)}; expected a mapping.")
    return content


def check_patches(vision: dict[str, Any], where: str) -> None:
    """Raises ModelError for an image tower with more patches than any model has."""
    size, patch = vision.get("image_size", 224), vision.get("patch_size", 16) or 32
    height, width = size if isinstance(size, list | tuple) else (size, size)
    if (patches := (height // patch) * (width // patch)) > MOST_PATCHES:
        raise ModelError(f"{where}: image_size {size} makes {patches:,} patches; expected at most {MOST_PATCHES:,}.")


class _Short(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxstring, self.maxlong = 3, 80, 40

    def repr_int(self, x: int, level: int) -> str:
        try:
            return super().repr_int(x, level)
        except ValueError:  # Python writes no number of more than 4,300 digits
            return "a number of thousands of digits"

    def repr_instance(self, x: Any, level: int) -> str:
        return repr(x) if isinstance(x, bool | float | type(None)) else f"<{type(x).__name__}>"


def shortened(value: Any) -> str:
    """Any value for a message, in a few words."""
    return _Short().repr(value)

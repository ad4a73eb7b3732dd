"""Options that take one of a few words: which, said once. The command line's help, completion and refusal go by these
types, and so does what refuses other words of Python callers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, get_args

from clipeval.errors import UsageError, suggest

Precision = Literal["fp32", "tf32", "bf16", "bf16-weights", "fp16"]
Executor = Literal["local", "processes", "ray"]
Rerun = Literal["missing", "always", "never"]
YesNo = Literal["yes", "no"]

Law = Literal[
    "power",
    "power_floor",
    "shifted",
    "shifted_floor",
    "m4",
    "broken",
    "sigmoid",
    "loglinear",
    "joint_nd",
    "joint_shared",
    "joint_repeats",
]
Frontier = Literal["none", "cherti2023", "pareto", "hull", "quantile"]
Estimator = Literal["least-squares", "huber", "weighted"]
Preset = Literal["cherti2023"]

TableFormat = Literal["text", "md", "tsv"]
CheckFormat = Literal["text", "json", "junit", "github", "markdown"]
Undecided = Literal["fail", "warn"]

Listing = Literal["models", "datasets", "suites", "tasks", "studies", "keys"]
CacheAction = Literal["list", "clear"]
CacheKind = Literal[
    "pixels",
    "images",
    "texts",
    "shards",
    "datasets",
    "huggingface",
    "downloads",
    "indexes",
    "profiles",
    "hub",
]


def words(choice: Any) -> tuple[str, ...]:
    """The words of one of these types, in their order."""
    return get_args(choice)


def listed(choice: Any) -> str:
    """``a, b or c``."""
    *others, last = words(choice)
    return f"{', '.join(others)} or {last}" if others else str(last)


def require(option: str, word: str, choice: Any) -> None:
    """Raises UsageError for a word that is none of the type's."""
    if word not in words(choice):
        raise UsageError(refusal(option, word, words(choice)))


def refusal(option: str, word: str, allowed: Iterable[str]) -> str:
    """Why a word is refused, and what may stand there."""
    allowed = list(allowed)
    return f"{option} {word}: unknown.{suggest(word, allowed)} Choose from: {', '.join(allowed)}."

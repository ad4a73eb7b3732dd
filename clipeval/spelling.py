"""Python's parameters and the command line's options, which have one name each: who knows one can write the other."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import wraps
from inspect import signature
from typing import ParamSpec, TypeVar

from clipeval.errors import UsageError

P = ParamSpec("P")
T = TypeVar("T")


def several(words: Sequence[str] | str | None) -> tuple[str, ...]:
    """The words that somebody wrote as a list, or as one word; none of None."""
    return (words,) if isinstance(words, str) else tuple(words or ())


def also(**names: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """A public function may be called with other ``names`` of its parameters, such as ``dataset`` for ``datasets``.

    Where an error speaks of an option of the command line, such as ``--rank-laws``, a note below it names the
    parameter. Raises TypeError where one parameter is given under both names.
    """

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        parameters = signature(function).parameters

        @wraps(function)
        def called(*args: P.args, **given: P.kwargs) -> T:
            for name in names.keys() & given.keys():
                if names[name] in given:
                    raise TypeError(f"{function.__name__}() got both '{name}' and '{names[name]}', which are the same")
                given[names[name]] = given.pop(name)
            try:
                return function(*args, **given)
            except UsageError as error:
                _translate(error)
                raise

        def _translate(error: UsageError) -> None:
            spoken = [word.replace("-", "_") for word in re.findall(r"(?<!\S)--([a-z][a-z-]*)", str(error))]
            found = {word: names.get(word, word) for word in spoken if names.get(word, word) in parameters}
            if found:
                pairs = ", ".join(f"--{word.replace('_', '-')} is {name}=" for word, name in found.items())
                error.add_note(f"In Python {pairs}")

        called.also = names  # type: ignore[attr-defined]
        return called

    return decorate

"""Why cells cannot be measured, for people: reasons that differ in names only are told together."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import takewhile
from typing import TypeVar

from clipeval.errors import counted, few

T = TypeVar("T")
MOST_APART = 3
"""So many that are alike are told each by itself."""
_NAME = re.compile(r".*[\d'\"/@_,].*")


def together(told: Iterable[tuple[str, T]]) -> list[tuple[str, list[T]]]:
    """Each reason with what has it. Of many that differ in names, addresses and numbers there is one, with ``…`` where
    they differ."""
    by_reason: dict[str, list[T]] = {}
    for reason, whose in told:
        by_reason.setdefault(reason, []).append(whose)
    alike: dict[str, list[str]] = {}
    for reason in by_reason:
        alike.setdefault(" ".join(_NAME.sub("…", word) for word in reason.split(" ")), []).append(reason)
    found = []
    for reasons in alike.values():
        if len(reasons) <= MOST_APART:
            found += [(reason, by_reason[reason]) for reason in reasons]
        else:
            found.append((_merged(reasons), [whose for reason in reasons for whose in by_reason[reason]]))
    return found


def _merged(reasons: Sequence[str]) -> str:
    return " ".join(_common(words) for words in zip(*(reason.split(" ") for reason in reasons), strict=True))


def _common(words: Sequence[str]) -> str:
    """What ``words`` begin and end with."""
    if len(set(words)) == 1:
        return words[0]
    begin = _beginning(words)
    end = _beginning([word[len(begin) :][::-1] for word in words])[::-1]
    return f"{begin}…{end}"


def _beginning(words: Sequence[str]) -> str:
    same = takewhile(lambda letters: len(set(letters)) == 1, zip(*words, strict=False))
    return "".join(letters[0] for letters in same)


def whose(models: Iterable[str], datasets: Iterable[str]) -> str:
    """``ViT-B-32,openai on 36 data sets (a, b, c and 33 more)``."""
    of = list(dict.fromkeys(models))
    return f"{of[0] if len(of) == 1 else counted(len(of), 'checkpoint')} on {on_sets(datasets)}"


def on_sets(datasets: Iterable[str]) -> str:
    """``36 data sets (a, b, c and 33 more)``, or the only one."""
    names = list(dict.fromkeys(datasets))
    return names[0] if len(names) == 1 else f"{counted(len(names), 'data set')} ({few(names, 3)})"

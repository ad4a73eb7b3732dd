"""Which samples of a source are used (``where``), and which texts are their captions, with what share (``caption``)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from clipeval.condition import condition
from clipeval.errors import DataError, few
from clipeval.plain import printable
from clipeval_train.config import SourceEntry


@dataclass(frozen=True)
class Selection:
    """What a source's configuration chooses."""

    source: str
    captions: tuple[str, ...] = ()
    """Where captions are; none named: where the kind of source has them."""
    where: str | None = None
    image: str = ""
    """The column of images; "" where it has a usual name."""

    @classmethod
    def of(cls, entry: SourceEntry) -> Selection:
        """What ``entry`` chooses."""
        return cls(entry.source, tuple(entry.caption or ()), entry.where)

    @property
    def identity(self) -> list[object]:
        """What changes with it; empty where all is as nothing was chosen."""
        return [[*self.captions], self.where] if self.captions or self.where else []

    @property
    def fields(self) -> tuple[str, ...]:
        """What ``where`` compares."""
        return condition(self.where).fields if self.where else ()

    def keeps(self, columns: Mapping[str, Any], place: str) -> np.ndarray:
        """``[rows]`` bool: the rows for which ``where`` holds, by the columns that it compares.

        Raises DataError that names ``place`` for values that cannot be compared.
        """
        import pyarrow

        assert self.where
        try:
            return condition(self.where).holds(pyarrow.table(dict(columns)))
        except (ValueError, TypeError, OverflowError, pyarrow.ArrowException) as error:
            kinds = few(
                f"{printable(name)} holds {few(sorted({type(value).__name__ for value in column}))}"
                for name, column in columns.items()
                if isinstance(column, list)
            )
            reason = kinds if isinstance(error, pyarrow.ArrowException) else error
            raise DataError(f"data: {self.source}: where: {place}: {reason}.") from error

    def check_fields(self, seen: Iterable[str], known: Sequence[str], what: str) -> None:
        """Raise DataError for a field that ``what`` does not have; ``known`` are some that it has."""
        if missing := sorted(set(self.fields).difference(seen)):
            others = few(map(printable, known)) or "none"
            raise DataError(f"data: {self.source}: where: {what} field '{missing[0]}'. There are: {others}.")


def place_of(key: str) -> tuple[str, str]:
    """Extension of the file that holds a text in a shard, and in a JSON file the field; "" where it is the whole file.

    ``txt`` is a file, ``json.recaption`` a field of one, ``syn.json.a.b`` a field inside another.
    """
    parts = key.split(".")
    if "json" not in parts[:-1]:
        return key, ""
    end = parts.index("json") + 1
    return ".".join(parts[:end]), ".".join(parts[end:])


def field_of(document: Any, name: str, absent: Any = None) -> Any:
    """The value of a field: of that name, else with the dots leading inwards; ``absent`` where there is none."""
    if not isinstance(document, Mapping):
        return absent
    if name in document:
        return document[name]
    outer, dot, inner = name.partition(".")
    return field_of(document.get(outer), inner, absent) if dot else absent


def captions_of(found: Any) -> list[str]:
    """The captions in a field of JSON, a text or a list of them: those that are texts and not blank."""
    captions = found if isinstance(found, list) else [found]
    return [caption for caption in captions if isinstance(caption, str) and caption.strip()]


def choose(weights: Sequence[float], present: Sequence[bool], draw: float) -> int:
    """Of the texts that are present, which one ``draw`` in [0, 1) chooses; at least one is."""
    shares = [(number, weight) for number, weight in enumerate(weights) if present[number]]
    left = draw * sum(weight for _, weight in shares)
    for number, weight in shares:
        left -= weight
        if left < 0:
            return number
    return shares[-1][0]

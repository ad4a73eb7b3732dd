"""Which rows of the current results belong to which of the baseline."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from clipeval.checks.measured import Key, Results, Row, differences, has_value, key_of
from clipeval.checks.rules import Rules
from clipeval.config import RuleEntry
from clipeval.errors import UsageError, suggest


@dataclass(frozen=True)
class Pair:
    """One cell of one checkpoint: its row here and in the baseline, None where there is none with a value.

    ``terms`` is what the rules demand. ``obstacle`` says why two rows that are there cannot be compared, and why a row
    is not there.
    """

    model: str
    baseline_model: str
    current: Row | None
    baseline: Row | None
    terms: RuleEntry
    obstacle: str = ""

    @property
    def row(self) -> Row:
        """Either row, to say what cell it is."""
        row = self.current or self.baseline
        assert row is not None
        return row

    @property
    def same_checkpoint(self) -> bool:
        """Whether both values are of the same weights."""
        return self._equal("checkpoint_sha256") is True

    @property
    def may_be_the_same(self) -> bool:
        """Whether nothing says that the weights are others: tables from elsewhere have no digests."""
        return self._equal("checkpoint_sha256") is not False

    @property
    def same_surroundings(self) -> bool:
        """Whether configuration, preprocessing, tokenizer and encoder are equal too, as far as both tables say."""
        return self._equal("checkpoint_identity") is not False

    def _equal(self, column: str) -> bool | None:
        """None where it is not in both tables."""
        here, before = (row.get(column) if row else None for row in (self.current, self.baseline))
        return here == before if here and before else None


def pair_models(current: Results, baseline: Results, words: Sequence[str]) -> list[tuple[str, str]]:
    """(current, baseline) checkpoints to compare: those of ``words``, ``NAME`` or ``NEW=OLD``, and only those.

    Without words: every checkpoint of the baseline with the one of the same name; one checkpoint on either side is
    compared whatever the names. Raises UsageError.
    """
    new, old = current.models(), baseline.models()
    for names, side in ((new, current), (old, baseline)):
        if not names:
            raise UsageError(
                f"{side.name}: there is no measured value in this table, so there is nothing to check. Raw result "
                "files become a table with: clipeval import"
            )
    if words:
        return [_named(word, new, old) for word in words]
    if len(new) == len(old) == 1:
        return [(new[0], old[0])]
    if not set(new) & set(old):
        raise UsageError(
            f"no checkpoint of {current.name} ({_listed(new)}) is called as one of {baseline.name} ({_listed(old)}). "
            "Say which belong together with -m NEW=OLD."
        )
    return [(name, name) for name in old]


def _named(word: str, new: list[str], old: list[str]) -> tuple[str, str]:
    splits = [(word, word)]
    splits += [(word[:at], word[at + 1 :]) for at, letter in enumerate(word) if letter == "="]
    for pair in splits:
        if pair[0] in new and pair[1] in old:
            return pair
    mine, _, theirs = word.partition("=")
    wrong, names = (mine, new) if mine not in new else (theirs or mine, old)
    where = "the current results" if names is new else "the baseline"
    raise UsageError(f"-m {word}: '{wrong}' is not a checkpoint of {where} ({_listed(names)}).{suggest(wrong, names)}")


def _listed(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def pair_cells(current: Results, baseline: Results, models: Sequence[tuple[str, str]], rules: Rules) -> Iterator[Pair]:
    """Every cell that either side has a value of."""
    for new, old in models:
        rows = current.of_model(new)
        here = _by_key(rows)
        expected = _by_key(baseline.of_model(old))
        for key in [*expected, *(key for key in here if key not in expected)]:
            terms = rules.terms(str(key[0]), str(key[1]), str(key[2]))
            for row, match, obstacle in _matched(expected.get(key, []), here.get(key, []), terms.same_version):
                absent = _absent(rows, key) if match is None else ""
                yield Pair(new, old, match, row, terms, obstacle or absent)


def _by_key(rows: Sequence[Row]) -> dict[Key, list[Row]]:
    """Rows with a value; a value that is repeated is there once."""
    found: dict[Key, list[Row]] = {}
    for row in rows:
        if has_value(row):
            group = found.setdefault(key_of(row), [])
            if not any(row["value"] == other["value"] and not differences(row, other, True) for other in group):
                group.append(row)
    return found


def _matched(expected: list[Row], here: list[Row], same_version: bool) -> Iterator[tuple[Row | None, Row | None, str]]:
    """(baseline, current, why they cannot be compared) for the rows of one key."""
    if not expected:
        yield from ((None, row, "") for row in here)
    for row in expected:
        rivals = [other for other in expected if not differences(row, other, same_version)]
        alike = [other for other in here if not differences(row, other, same_version)]
        match = next(iter(alike or here), None)
        if len(rivals) > 1:
            if row is rivals[0]:
                yield row, match, f"the baseline has {_values(rivals)} for this cell"
        elif len(alike) > 1:
            yield row, match, f"there are {_values(alike)} for this cell"
        elif match is None or alike:
            yield row, match, ""
        else:
            yield row, match, ", ".join(differences(row, match, same_version))


def _values(rows: list[Row]) -> str:
    shown = ", ".join(format(row["value"], ".6g") for row in rows[:3])
    return f"{len(rows)} different values ({shown})"


def _absent(rows: Sequence[Row], key: Key) -> str:
    """Why there is no value of a cell, in the words of a row without one."""
    for row in rows:
        same = key_of(row)
        if (same[:2], same[3:]) == (key[:2], key[3:]) and not has_value(row):
            if row.get("error"):
                return f"{row['status']}: {row['error']}"
            if same == key:
                return f"its value is {'empty' if row.get('value') is None else row['value']}"
    return "there is no such row"

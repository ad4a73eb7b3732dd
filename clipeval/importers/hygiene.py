"""What is wrong with imported figures as a whole: values given twice, checkpoints under two names, rounded counts."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable

from clipeval.models import zoo
from clipeval.results.ledger import Row
from clipeval.results.schema import IDENTITY

_MEASUREMENT = ("study", "stage", *IDENTITY)
_ENOUGH = 10
"""Equal values that make two checkpoints one: fewer may agree by chance."""
_SHOWN = 5


def once(rows: Iterable[Row]) -> tuple[list[Row], list[str]]:
    """The rows without repetitions of a value of the same measurement; two different values both stay."""
    kept: dict[tuple[object, ...], list[Row]] = defaultdict(list)
    repeated, differing = 0, []
    for row in rows:
        known = kept[tuple(row.get(name) for name in _MEASUREMENT)]
        if any(other["value"] == row["value"] for other in known):
            repeated += 1
            continue
        if known:
            differing.append(f"{row['model']} {row['dataset']} {row['metric']}")
        known.append(row)
    notes = [f"{repeated} values are given twice: kept once"] if repeated else []
    if differing:
        notes.append(f"{len(differing)} measurements have two different values, both kept: {_named(differing)}")
    return [row for group in kept.values() for row in group], notes


def mark_duplicates(rows: list[Row]) -> tuple[list[Row], list[str]]:
    """Leave all but one of the checkpoints whose values are all equal out of from-scratch fits.

    The one of which more is known stays: its name has the right activation, its number of unique samples is known.
    """
    values: dict[str, list[tuple[object, ...]]] = defaultdict(list)
    first: dict[str, Row] = {}
    for row in rows:
        first.setdefault(row["model"], row)
        values[row["model"]].append((*(row.get(name) for name in _MEASUREMENT if name != "model"), row["value"]))
    same: dict[frozenset[tuple[object, ...]], list[str]] = defaultdict(list)
    for model, measured in values.items():
        if len(measured) >= _ENOUGH:
            same[frozenset(measured)].append(model)
    stays = {}
    for models in same.values():
        models.sort(key=lambda model: _little_known(first[model]))
        stays.update(dict.fromkeys(models[1:], models[0]))
    notes = [f"{model} is identical to {other} in all {len(values[model])} values" for model, other in stays.items()]
    return [_left_out(row, stays[row["model"]]) if row["model"] in stays else row for row in rows], notes


def _little_known(row: Row) -> tuple[bool, bool]:
    known = zoo.checkpoints().get((row["arch"], row["pretrained"]))
    return known is not None and not known.activation_matches, math.isnan(row["unique_samples"])


def _left_out(row: Row, other: str) -> Row:
    reasons = (f"duplicate of {other}", row.get("from_scratch_filter"))
    return row | {"from_scratch_filter": "; ".join(filter(None, reasons))}


def remarks(rows: Iterable[Row]) -> list[str]:
    """What from-scratch fits leave out and why, and where the number of samples seen is rounded or not known."""
    reasons: dict[str, dict[str, None]] = defaultdict(dict)
    checkpoints: dict[str, Row] = {}
    for row in rows:
        for reason in filter(None, (row.get("from_scratch_filter") or "").split("; ")):
            reasons[_kind(reason)][row["model"]] = None
        checkpoints[row["model"]] = row
    notes = [f"from-scratch fits leave out, {reason}: {_named(models)}" for reason, models in reasons.items()]
    rounded = [
        f"{name} (by up to {row['samples_seen_tolerance']:.0%})"
        for name, row in checkpoints.items()
        if row["samples_seen_from"] == "tag"
    ]
    unknown = [name for name, row in checkpoints.items() if math.isnan(row["samples_seen"])]
    notes += [f"samples seen are rounded in the tag: {_named(rounded)}"] if rounded else []
    return notes + ([f"samples seen are not known: {_named(unknown)}"] if unknown else [])


def _kind(reason: str) -> str:
    """A reason without the other checkpoint or the numbers that it names."""
    kinds = ("duplicate", "same run", "same recipe", "wrong GMACs")
    return next((kind for kind in kinds if reason.startswith(kind)), reason)


def _named(names: Iterable[str]) -> str:
    names = list(names)
    return f"{len(names)} ({', '.join(names[:_SHOWN])}{', ...' if len(names) > _SHOWN else ''})"

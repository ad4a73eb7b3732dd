"""Runs at a constant rate that share their way: trained once, as a trunk, from which each branches off to cool down.

A constant rate does not depend on where a run ends, so all runs of an architecture and a source that differ in their
samples alone are equal until the first of them cools down (Zhai et al., arXiv 2106.04560, section 3.5; Hägele et al.,
arXiv 2405.18392). The trunk is trained in parts, each as long as from one branching point to the next: a branch begins
when its part is done, beside the next part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from clipeval_train.ladder.runs import Run, hidden, make

KEYS = ("samples", "cooldown")
"""In what branches of one trunk differ."""
_LATER = ("cooldown", "evaluate", "validate")


def with_trunks(runs: Sequence[Run], families: Sequence[str]) -> list[Run]:
    """The runs of a ladder with their trunks in front, each run behind the one that it goes on from.

    ``families`` names each run without its ``KEYS``. Those that cool down, have company in their family and begin to
    cool down after the warm-up become branches; the others stay as they are.
    """
    members: dict[str, list[int]] = {}
    for number, family in enumerate(families):
        members.setdefault(family, []).append(number)
    trunks: dict[tuple[str, int], Run] = {}
    found = list(runs)
    for family, numbers in members.items():
        if len(numbers) == 1:
            continue
        those = _with_one_warmup([runs[number] for number in numbers])
        points = sorted({point for run in those if (point := _branching_point(run)) is not None})
        for before, point in pairwise([0, *points]):
            trunks[family, point] = _part(family, those[0], point, trunks.get((family, before)))
        for number, run in zip(numbers, those, strict=True):
            point = _branching_point(run)
            found[number] = runs[number] if point is None else _onto(run, trunks[family, point])
    return [*trunks.values(), *found]


def _with_one_warmup(runs: Sequence[Run]) -> list[Run]:
    """The runs with the warm-up of the shortest of them where none is given: it goes by their samples."""
    if runs[0].config.warmup is not None:
        return list(runs)
    warmup = min(run.config.warmup_samples for run in runs)
    return [
        replace(
            run, document=run.document | {"warmup": warmup}, config=run.config.model_copy(update={"warmup": warmup})
        )
        for run in runs
    ]


def _branching_point(run: Run) -> int | None:
    """The last end of a batch before the cooldown, in samples; None where nothing is to be shared."""
    config = run.config
    if not config.cooldown or config.start_from:
        return None
    point = (config.samples - config.cooldown) // config.batch_size * config.batch_size
    return point if point > config.warmup_samples else None


def _part(family: str, example: Run, point: int, before: Run | None) -> Run:
    """The trunk of ``example`` up to ``point``. Its rate has not come down: it is not evaluated."""
    name = "-".join(filter(None, [family, "trunk", str(point)]))
    document = {key: value for key, value in example.document.items() if key not in _LATER}
    document |= {"samples": point, "out": (hidden(example.home) / name).as_posix()}
    part = make(name, document, example.home, processes=example.processes)
    return _onto(part, before) if before else part


def _onto(run: Run, trunk: Run) -> Run:
    """``run`` from the trunk's last checkpoint, by its name: one of a trunk that is not done yet will not do."""
    start = trunk.config.path(trunk.config.samples).as_posix()
    document = run.document | {"start_from": start}
    config = run.config.model_copy(update={"start_from": start})
    return replace(run, document=document, config=config, after=trunk.name, seen_before=trunk.config.samples)

"""Every drop with its verdict: of the cells, and of the means that decide for them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from clipeval.checks.drops import Drop
from clipeval.checks.matching import Pair
from clipeval.checks.suites import Mean, Tested, measurement, measurements, of_main_metrics
from clipeval.checks.verdicts import FAIL
from clipeval.config import Config
from clipeval.stats.paired import Paired
from clipeval.stats.significance import holm


@dataclass(frozen=True)
class Decided:
    """``drops`` by the number of their pair, of which those in ``asked`` are means, and ``means`` that are no pair.

    Those ``alone`` decide by themselves, being a mean or all that there is of one; others do not where they are
    undecided.
    """

    drops: Mapping[int, Drop]
    asked: Mapping[int, Mean]
    means: Sequence[tuple[Mean, Drop]]
    alone: frozenset[int]


def decide(pairs: Sequence[Pair], tests: Sequence[Tested], asked: Mapping[int, Mean], config: Config) -> Decided:
    """Judge the cells and means that have a paired test and may lose only so much; ``asked`` are the means of rows.

    P values are corrected by Holm's method, over the cells and over the means. A mean is allowed what its own rule
    says, and without a row of its own the mean of what its cells are allowed.
    """
    judged = {
        number: Drop(test, pair.terms.max_drop, pair.terms.alpha)
        for number, (pair, test) in enumerate(zip(pairs, tests, strict=True))
        if isinstance(test, Paired) and pair.terms.max_drop is not None and not pair.same_checkpoint
    }
    single = [number for number in judged if number not in asked]
    drops = dict(zip(single, _corrected([judged[number] for number in single]), strict=True))
    asked = {number: mean for number, mean in asked.items() if number in judged}
    several, alone = split(pairs, single, asked.values(), config)
    means = [*asked.values(), *several]
    found = [*(judged[number] for number in asked), *(_averaged(mean, drops, pairs, tests) for mean in several)]
    named = [_named(mean, drop, drops, pairs) for mean, drop in zip(means, _corrected(found), strict=True)]
    rows = dict(zip(asked, named, strict=False))
    return Decided(drops | rows, asked, list(zip(several, named[len(rows) :], strict=True)), frozenset([*rows, *alone]))


def split(
    pairs: Sequence[Pair], cells: Sequence[int], asked: Iterable[Mean], config: Config
) -> tuple[list[Mean], list[int]]:
    """What decides beside the means that were asked for: means of several cells, and cells that are alone. Neither is
    of a data set that is in one of those."""
    known = {measured for mean in asked for measured in measurements(mean, pairs)}
    means = list(of_main_metrics(pairs, [n for n in cells if measurement(pairs[n]) not in known], config))
    several = [mean for mean in means if len(mean.cells) > 1]
    return several, [mean.cells[0] for mean in means if len(mean.cells) == 1]


def _corrected(drops: Sequence[Drop]) -> list[Drop]:
    p = np.array([(drop.test.p, drop.p_beyond) for drop in drops]).reshape(-1, 2)
    pairs = zip(holm(p[:, 0]).tolist(), holm(p[:, 1]).tolist(), strict=True)
    return [replace(drop, p_holm=loss, p_beyond_holm=beyond) for drop, (loss, beyond) in zip(drops, pairs, strict=True)]


def _averaged(mean: Mean, drops: Mapping[int, Drop], pairs: Sequence[Pair], tests: Sequence[Tested]) -> Drop:
    test, own = mean.test(pairs, tests), [drops[number] for number in mean.cells]
    assert isinstance(test, Paired)
    return Drop(test, float(np.mean([drop.allowed for drop in own])), min(drop.alpha for drop in own))


def _named(mean: Mean, drop: Drop, drops: Mapping[int, Drop], pairs: Sequence[Pair]) -> Drop:
    """With the names of the data sets that settle it."""
    own = [(str(pairs[number].row["dataset"]), drops[number]) for number in mean.cells if number in drops]
    failing = dict.fromkeys(name for name, found in own if found.verdict == FAIL)
    return replace(drop, failing=tuple(failing), suspects=tuple(name for name, found in own if found.is_suspect))

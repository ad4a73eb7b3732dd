"""``--plan``: how often would a checkpoint pass that is as good as the baseline? Asked before it is measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from clipeval import config as configuration
from clipeval.checks.decided import split
from clipeval.checks.gate import tested
from clipeval.checks.matching import Pair, pair_cells, pair_models
from clipeval.checks.measured import Results, key_of
from clipeval.checks.rules import Rules
from clipeval.checks.suites import Mean, Tested, asked_for
from clipeval.config import Config
from clipeval.errors import UsageError, few, suggest
from clipeval.paths import exists
from clipeval.stats import noninferiority
from clipeval.stats.paired import Paired
from clipeval.vocabulary import metric

if TYPE_CHECKING:
    import pandas as pd

ASSUMED = (0.02, 0.05, 0.10, 0.15)
"""Shares of outcomes that may differ. Between neighbours of one training run they are few, between runs many."""
_MOST_NAMED = 5


@dataclass(frozen=True)
class Prospect:
    """What a share of differing outcomes would make of a mean: ``share`` of all, how often it passes at equal quality,
    and how many outcomes would make that 90 %. ``source`` says where the share is from, empty where it is assumed."""

    share: float
    pass_chance: float
    outcomes_needed: int | None
    source: str = ""


@dataclass(frozen=True)
class Planned:
    """One mean, or one data set by itself, with the samples of each; captions of one image count as one."""

    where: str
    members: tuple[str, ...]
    counts: tuple[int, ...]
    allowed: float
    prospects: tuple[Prospect, ...]

    @property
    def outcomes(self) -> int:
        """Of all data sets."""
        return sum(self.counts)

    @property
    def is_measured(self) -> bool:
        """Whether one of the shares is not assumed."""
        return any(found.source for found in self.prospects)

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return vars(self) | {"outcomes": self.outcomes, "prospects": [vars(found) for found in self.prospects]}


@dataclass(frozen=True)
class Plan:
    """What is known of a check before it."""

    planned: Sequence[Planned]
    notes: Sequence[str]

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"plan": [planned.to_dict() for planned in self.planned], "notes": list(self.notes)}


def plan(
    current: str | Path, against: str | Path, *, rules: str | Path | None = None, models: Sequence[str] = ()
) -> Plan:
    """How well a check against ``against`` can decide. That is a results table, or before there is one a data set or
    suite of the configuration ``rules``, of which the sizes are known.

    How many outcomes will differ is assumed; and measured, where ``current`` is there already or the baseline has
    another checkpoint. Raises UsageError.
    """
    config = configuration.load(rules)
    before = Results(against if exists(Path(against)) else _catalogue(str(against), config))
    now = Results(current) if exists(Path(current)) else before
    first, *others = before.models() or [""]
    names = pair_models(now, before, models) if now is not before else [((others or [first])[0], first)]
    pairs = [pair for pair in pair_cells(now, before, names, Rules(config)) if pair.baseline]
    tests = [None if pair.same_checkpoint else tested(pair, now, before) for pair in pairs]
    source = " against ".join(names[0])
    found = _Samples(pairs, tests, config)
    judged = [number for number, pair in enumerate(pairs) if pair.terms.max_drop is not None]
    asked = {number: mean for number, mean in asked_for(pairs, before.suites).items() if number in judged}
    several, alone = split(pairs, [n for n in judged if n not in asked and found.size(n)], asked.values(), config)
    means = [*asked.values(), *several, *(Mean(((number,),)) for number in alone)]
    unknown = dict.fromkeys(str(pairs[n].row["dataset"]) for n in judged if n not in asked and not found.size(n))
    notes = [f"not known, how many samples there are: {few(unknown, _MOST_NAMED)}"] if unknown else []
    if not means:
        raise UsageError(f"{before.name}: nothing in this table may lose only so much, so there is nothing to plan.")
    return Plan([found.planned(mean, source) for mean in means], notes)


def _catalogue(word: str, config: Config) -> pd.DataFrame:
    """A table of the data set or suite that a word names, as if it was measured."""
    import pandas as pd

    names = config.members(word) if word in config.suites else (word,) if config.dataset(word) else ()
    if not names:
        known = [*config.suites, *config.datasets]
        raise UsageError(
            f"--against {word}: there is no such table, and no data set or suite is called so.{suggest(word, known)}"
        )
    entries = [(name, config.dataset(name)) for name in names]
    rows = [{"dataset": name, "n": entry.n if entry else None} for name, entry in entries]
    same = {"model": word, "task": "zeroshot", "metric": "main_metric", "value": 0.0, "status": "ok"}
    return pd.DataFrame([row | same for row in rows])


@dataclass(frozen=True)
class _Samples:
    """What is known of the samples behind pairs of rows."""

    pairs: Sequence[Pair]
    tests: Sequence[Tested]
    config: Config

    def size(self, number: int) -> int:
        """How many are independent of each other; 0 where it is not known."""
        test, row = self.tests[number], self.pairs[number].row
        if isinstance(test, Paired) and test.units is not None:
            return len(test.units)
        entry = self.config.dataset(str(row["dataset"]))
        known = [n for n in (row.get("n"), entry.n if entry else None) if n]
        captions = metric(str(row["metric"])).direction == "text_to_image"
        return int(min(known) if captions else known[0]) if known else 0

    def planned(self, mean: Mean, source: str) -> Planned:
        """What becomes of a mean. Data sets of several metrics count by their images, once."""
        terms = [self.pairs[number].terms for number in mean.cells]
        counts = np.array([min(map(self.size, numbers)) for numbers in mean.datasets])
        allowed = float(np.mean([term.max_drop or 0.0 for term in terms])) / 100
        level = 1 - min(term.alpha for term in terms)

        def prospect(share: float, variance: float, source: str = "") -> Prospect:
            chance = float(noninferiority.pass_chance(variance, allowed, level))
            more = float(noninferiority.times_as_many(variance, allowed, level)) if allowed else math.inf
            return Prospect(share, chance, math.ceil(more * counts.sum()) if allowed else None, source)

        found = [prospect(share, share * float(np.sum(1 / counts)) / len(counts) ** 2) for share in ASSUMED]
        test = mean.test(self.pairs, self.tests)
        if isinstance(test, Paired):
            found.append(prospect((test.lost + test.won) / test.n, test.variance_if_equal, source))
        dataset, name = mean.named(self.pairs)
        _, task, _, shots, *_ = key_of(self.pairs[mean.cells[0]].row)
        shown = f"{dataset} · {task}{f' · {shots} shots' if shots is not None else ''} · {name}"
        return Planned(shown, mean.members(self.pairs), tuple(counts.tolist()), 100 * allowed, tuple(found))

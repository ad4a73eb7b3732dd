"""``clipeval check``: pair the cells, test them, and judge each by its rules.

Two cases are never mixed. The same checkpoint measured again has no sampling error: it is held to a tolerance
(``again.py``). Another checkpoint on the same samples passes where the mean over data sets lost no more than allowed,
as far as chance can be excluded, and no data set is suspect; it fails where more was lost beyond chance (``drops.py``).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from clipeval import choices
from clipeval import config as configuration
from clipeval.checks.again import reproduced
from clipeval.checks.decided import Decided, decide
from clipeval.checks.drops import ROUNDING, Drop
from clipeval.checks.matching import Pair, pair_cells, pair_models
from clipeval.checks.measured import Results, Row, has_value, key_of
from clipeval.checks.result import CheckedCell, CheckResult
from clipeval.checks.rules import Rules
from clipeval.checks.suites import Mean, Tested, asked_for
from clipeval.checks.trend import Trends
from clipeval.checks.verdicts import CANNOT_TELL, FAIL, NOT_COMPARABLE, PASS, Finding
from clipeval.machine import uncollected
from clipeval.results.reading import Results as Given
from clipeval.spelling import also, several
from clipeval.stats.paired import compare
from clipeval.stats.scored import NotPairedError, OtherSamplesError, Scored

if TYPE_CHECKING:
    pass

_MOST_NOTES = 6
"""Lines that say what would decide a drop."""


@also(model="models", baseline="against")
@uncollected()
def check(
    current: Given,
    against: Given,
    *,
    rules: str | Path | None = None,
    models: Sequence[str] | str = (),
    undecided: str = "fail",
) -> CheckResult:
    """Compare the results ``current`` with the baseline ``against``: each a results folder, a file, a published
    study, a DataFrame, or a list of these. Only a folder has the outcomes per sample that paired tests need.

    ``rules`` is a configuration whose ``rules`` count, by default ``./benchmarks.yaml`` where there is one. ``models``
    are checkpoints to compare, ``NAME`` or ``NEW=OLD``; by default all of the baseline, by name, or the only one on
    either side. ``undecided`` is ``fail`` or ``warn``: whether the exit code of what could not be decided is 3 or 0.
    Raises UsageError for what is no results table, for wrong rules and for names that are not there.
    """
    choices.require("--undecided", undecided, choices.Undecided)
    config = configuration.load(rules)
    found = Rules(config)
    now, before = Results(current), Results(against)
    pairs = list(pair_cells(now, before, pair_models(now, before, several(models)), found))
    tests = [tested(pair, now, before) for pair in pairs]
    asked = asked_for(pairs, now.suites) if any(pair.current and pair.baseline for pair in pairs) else {}
    for number, mean in asked.items():
        tests[number] = None if pairs[number].same_checkpoint else mean.test(pairs, tests)
    decided = decide(pairs, tests, asked, config)
    trends, cells = Trends(before), {}
    for number, pair in enumerate(pairs):
        rounding = asked[number].rounding(pairs) if number in asked else 0.0
        if findings := tuple(_findings(pair, tests[number], decided.drops.get(number), rounding, trends)):
            cells[number] = _cell(number, pairs, findings, decided)
    means = [_mean_cell(mean, drop, pairs) for mean, drop in decided.means]
    notes = [*_notes(pairs, len(pairs) - len(cells), now, before, found)]
    deciding = [*means, *(cell for number, cell in cells.items() if number in decided.alone)]
    notes += _of_tests(deciding, len(decided.drops) - len(decided.asked))
    in_order = sorted(cells.values(), key=lambda cell: cell.place)
    return CheckResult(in_order, notes, now.name, before.name, means=means, undecided=undecided)


def tested(pair: Pair, now: Results, before: Results) -> Tested:
    """The paired test of two rows, or why there is none; None where one of them is missing or they do not compare."""
    if pair.current is None or pair.baseline is None or pair.obstacle:
        return None
    try:
        return compare(_scored(before, pair.baseline), _scored(now, pair.current))
    except NotPairedError as reason:
        return reason


def _scored(side: Results, row: Row) -> Scored:
    try:
        return side.scored(row)
    except OtherSamplesError:
        raise
    except NotPairedError as reason:
        raise NotPairedError(f"{side.name}: {reason}") from reason


def _findings(pair: Pair, test: Tested, drop: Drop | None, rounding: float, trends: Trends) -> Iterator[Finding]:
    terms = pair.terms
    if pair.current is None:
        if terms.complete:
            yield Finding("complete", CANNOT_TELL, f"missing: {pair.obstacle}")
        return
    value, higher = float(pair.current["value"]), pair.row.get("higher_is_better") is not False
    if terms.min is not None and not higher:
        yield Finding("min", CANNOT_TELL, f"{pair.row['metric']} is better when lower: 'min' says nothing of it")
    elif terms.min is not None:
        verdict, sign = (PASS, ">=") if value >= terms.min else (FAIL, "<")
        yield Finding("min", verdict, f"{value:.4f} {sign} min {terms.min:g}")
    if terms.on_trend is not None:
        yield trends.judge(pair.current, terms.on_trend)
    if pair.baseline is None:
        return
    if pair.obstacle or isinstance(test, OtherSamplesError):
        yield Finding("same_samples", NOT_COMPARABLE, pair.obstacle or str(test))
        return
    change = 100 * (value - float(pair.baseline["value"]))
    if pair.same_checkpoint:
        yield reproduced(pair, change, test, rounding)
    elif drop:
        yield Finding("max_drop", drop.verdict, drop.reason)
    else:
        yield _without_a_test(-change if higher else change, pair, test)


def _without_a_test(drop: float, pair: Pair, test: Tested) -> Finding:
    allowed, said = pair.terms.max_drop, "no drop" if drop <= 0 else f"drop {drop:.2f} points"
    if allowed is None:
        return Finding("max_drop", PASS, said if drop <= 0 else f"{said}, any allowed")
    if abs(drop) <= ROUNDING and pair.may_be_the_same:
        return Finding("max_drop", PASS, "the same value, and nothing says that it is of another checkpoint")
    return Finding("max_drop", CANNOT_TELL, f"{said}, {allowed:g} allowed, but no paired test: {test}")


def _cell(number: int, pairs: Sequence[Pair], findings: tuple[Finding, ...], decided: Decided) -> CheckedCell:
    pair, drop = pairs[number], decided.drops.get(number)
    open_ones = {said.rule for said in findings if said.verdict != PASS}
    decides = number in decided.alone or open_ones != {"max_drop"} or drop is None or drop.settles
    before, now = (math.nan if row is None else float(row["value"]) for row in (pair.baseline, pair.current))
    members = decided.asked[number].members(pairs) if number in decided.asked else ()
    known = _place(pair) | {"baseline": before, "current": now, "drop": drop}
    return CheckedCell(**known, findings=findings, members=members, decides=decides)


def _mean_cell(mean: Mean, drop: Drop, pairs: Sequence[Pair]) -> CheckedCell:
    both = [[(pairs[n].baseline, pairs[n].current) for n in numbers] for numbers in mean.datasets]
    of_sets = [[np.mean([row["value"] for row in side if row]) for side in zip(*rows, strict=True)] for rows in both]
    before, now = np.mean(of_sets, axis=0).tolist()
    dataset, metric = mean.named(pairs)
    known = _place(pairs[mean.cells[0]]) | {"dataset": dataset, "metric": metric}
    findings = (Finding("max_drop", drop.verdict, drop.reason),)
    return CheckedCell(
        **known | {"baseline": before, "current": now, "drop": drop}, findings=findings, members=mean.members(pairs)
    )


def _place(pair: Pair) -> dict[str, Any]:
    dataset, task, metric, shots, seed, _ = key_of(pair.row)
    where = {"dataset": str(dataset), "task": task, "metric": str(metric), "shots": shots, "seed": seed}
    return {"model": pair.model, "baseline_model": pair.baseline_model} | where


def _of_tests(deciding: Sequence[CheckedCell], tested: int) -> Iterator[str]:
    """What would decide what is not decided, and what the p values are."""
    several = len({cell.who for cell in deciding}) > 1
    open_ones = [
        f"{f'{cell.who}: ' if several else ''}{cell.where}: {cell.drop.what_decides}"
        for cell in deciding
        if cell.verdict == CANNOT_TELL and cell.drop and cell.drop.is_too_wide
    ]
    yield from open_ones[:_MOST_NOTES]
    if len(open_ones) > _MOST_NOTES:
        yield f"{len(open_ones) - _MOST_NOTES} more are not decided: --format json has 'outcomes_needed' of each"
    if tested:
        yield f"p values are one-sided, corrected by Holm's method over the {tested} cells with a paired test"


def _notes(pairs: Sequence[Pair], silent: int, now: Results, before: Results, rules: Rules) -> Iterator[str]:
    absent = sum(pair.current is None and not pair.terms.complete for pair in pairs)
    if absent:
        yield f"{absent} cells of the baseline are not in {now.name} and need not be: complete is false"
    if silent > absent:
        yield f"{silent - absent} cells are not in the baseline and no rule judges them"
    paired = {pair.model for pair in pairs}
    if others := [name for name in now.models() if name not in paired]:
        names = ", ".join([*others[:5], *(["..."] if len(others) > 5 else [])])
        yield f"{len(others)} checkpoints of {now.name} are not compared: {names}"
    empty = sum(not has_value(row) for row in before.rows)
    if empty:
        yield f"{empty} rows of {before.name} have no value (skipped, failed or incomplete) and demand nothing"
    yield from rules.without_a_cell()

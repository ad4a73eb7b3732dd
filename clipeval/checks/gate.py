"""``clipeval check``: pair the cells, test them, and judge each by its rules.

Two cases are never mixed. The same checkpoint measured again has no sampling error: it is held to a tolerance. Another
checkpoint on the same samples is a regression only where its loss is both larger than allowed and significant.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from clipeval import config as configuration
from clipeval.checks.matching import Pair, pair_cells, pair_models
from clipeval.checks.measured import Key, Results, Row, has_value, key_of
from clipeval.checks.rules import Rules
from clipeval.checks.trend import Trends
from clipeval.checks.verdicts import (
    CANNOT_TELL,
    FAIL,
    NOT_COMPARABLE,
    PASS,
    VERDICTS,
    CheckedCell,
    CheckResult,
    Finding,
)
from clipeval.results.suites import COMPOUND_METRICS, SuiteRequest
from clipeval.stats.paired import NotPairedError, OtherSamplesError, Paired, Scored, average, compare
from clipeval.stats.significance import holm

if TYPE_CHECKING:
    import pandas as pd

_ROUNDING = 1e-9


def check(
    current: str | Path | pd.DataFrame,
    against: str | Path | pd.DataFrame,
    *,
    rules: str | Path | None = None,
    models: Sequence[str] = (),
) -> CheckResult:
    """Compare the results ``current`` with the baseline ``against``: results folders, table files or DataFrames.

    ``rules`` is a configuration whose ``rules`` count, by default ``./benchmarks.yaml`` where there is one. ``models``
    are checkpoints to compare, ``NAME`` or ``NEW=OLD``; by default all of the baseline, by name, or the only one on
    either side. Raises UsageError for what is no results table, for wrong rules and for names that are not there.
    """
    found = Rules(configuration.load(rules))
    now, before = Results(current), Results(against)
    pairs = list(pair_cells(now, before, pair_models(now, before, models), found))
    tests = {number: _tested(pair, now, before) for number, pair in enumerate(pairs)}
    tests |= _suites(pairs, tests, now)
    corrected = holm(np.array([test.p if isinstance(test, Paired) else math.nan for test in tests.values()]))
    trends = Trends(before)
    cells, silent = [], 0
    for number, pair in enumerate(pairs):
        findings = tuple(_findings(pair, tests[number], float(corrected[number]), trends))
        if findings:
            cells.append(_cell(pair, findings, tests[number], float(corrected[number])))
        else:
            silent += 1
    cells.sort(key=lambda cell: VERDICTS.index(cell.verdict))
    notes = list(_notes(pairs, silent, now, before, found))
    if family := int(np.isfinite(corrected).sum()):
        notes.append(f"p values are one-sided, corrected by Holm's method over the {family} cells with a paired test")
    return CheckResult(cells, notes, now.name, before.name)


Tested = Paired | NotPairedError | None
"""A paired test, or why there is none; None where none is due."""


def _tested(pair: Pair, now: Results, before: Results) -> Tested:
    if pair.current is None or pair.baseline is None or pair.obstacle or pair.same_checkpoint:
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


def _suites(pairs: Sequence[Pair], tests: dict[int, Tested], now: Results) -> dict[int, Tested]:
    """Tests of suite averages, from those of their members."""
    if all(pair.current is None or pair.baseline is None or pair.same_checkpoint for pair in pairs):
        return {}
    by_cell = {(pair.model, key_of(pair.row)): (pair, tests[number]) for number, pair in enumerate(pairs)}
    requests = {(suite.name, suite.metric): suite for suite in now.suites}
    found: dict[int, Tested] = {}
    for number, pair in enumerate(pairs):
        suite = requests.get((pair.row["dataset"], pair.row["metric"]))
        if suite and pair.current and pair.baseline and not pair.same_checkpoint:
            members = [_member(pair, suite, *member, by_cell) for member in suite.members]
            other = next((test for test in members if isinstance(test, OtherSamplesError)), None)
            found[number] = other or _average(members)
    return found


def _member(
    pair: Pair, suite: SuiteRequest, dataset: str, metric: str, by_cell: dict[tuple[str, Key], tuple[Pair, Tested]]
) -> Tested:
    """The test of one data set of a suite, by the metric that counts there."""
    _, task, _, *variant = key_of(pair.row)
    names = COMPOUND_METRICS.get(metric, (metric,))
    tasks = suite.tasks if len(suite.tasks) > 1 else (task,)
    keys = [(pair.model, (dataset, task, name, *variant)) for name in names for task in tasks]
    cells = [by_cell[key] for key in keys if key in by_cell]
    if any(cell.obstacle and cell.current for cell, _ in cells):
        return OtherSamplesError(f"the values of {dataset} are not comparable")
    found = [test for _, test in cells if isinstance(test, Paired)]
    return average(found) if len(found) == len(names) else next((test for _, test in cells if test), None)


def _average(members: Sequence[Tested]) -> Tested:
    found = [test for test in members if isinstance(test, Paired)]
    if len(found) == len(members):
        return average(found)
    return NotPairedError(f"{len(members) - len(found)} of its {len(members)} data sets have no paired test")


def _findings(pair: Pair, test: Tested, p_holm: float, trends: Trends) -> Iterator[Finding]:
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
        yield _reproduced(change, terms.tolerance, pair.same_surroundings)
    else:
        yield _compared(-change if higher else change, terms, test, p_holm)


def _reproduced(change: float, tolerance: float, same_surroundings: bool) -> Finding:
    if abs(change) <= tolerance + _ROUNDING:
        return Finding("tolerance", PASS, f"the same checkpoint: {_points(abs(change))} apart, {tolerance:g} allowed")
    away = f"{change:+.2f} points away, {tolerance:g} allowed"
    if same_surroundings:
        why = f"the same checkpoint measured again is {away}: the evaluation changed, not the checkpoint"
    else:
        why = (
            f"the same weights are {away}: their configuration, preprocessing or tokenizer, or the version of clipeval "
            "or open_clip, is another (checkpoint_identity)"
        )
    return Finding("tolerance", FAIL, why)


def _compared(drop: float, terms: configuration.RuleEntry, test: Tested, p_holm: float) -> Finding:
    if terms.max_drop is None or drop <= terms.max_drop + _ROUNDING:
        allowed = "any" if terms.max_drop is None else f"{terms.max_drop:g}"
        return Finding("max_drop", PASS, "no drop" if drop <= 0 else f"drop {_points(drop)}, {allowed} allowed")
    said = f"drop {_points(drop)}, {terms.max_drop:g} allowed"
    if not isinstance(test, Paired):
        return Finding("max_drop", CANNOT_TELL, f"{said}, but no paired test: {test}")
    how = f"p {p_holm:.2g} ({test.test})"
    if p_holm <= terms.alpha:
        return Finding("max_drop", FAIL, f"{said}, {how}")
    return Finding("max_drop", CANNOT_TELL, f"{said}, but it may be chance: {how} > alpha {terms.alpha:g}")


def _points(value: float) -> str:
    return f"{value:.2f} points"


def _cell(pair: Pair, findings: tuple[Finding, ...], test: Tested, p_holm: float) -> CheckedCell:
    dataset, task, metric, shots, seed, _ = key_of(pair.row)
    paired = test if isinstance(test, Paired) else None
    return CheckedCell(
        pair.model,
        pair.baseline_model,
        str(dataset),
        task,
        str(metric),
        shots,
        seed,
        math.nan if pair.baseline is None else float(pair.baseline["value"]),
        math.nan if pair.current is None else float(pair.current["value"]),
        findings,
        paired.p if paired else math.nan,
        p_holm,
        paired.test if paired else "",
    )


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

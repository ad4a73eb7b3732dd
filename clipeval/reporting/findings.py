"""What the results show, in sentences made of the fit: which source scales better on the headline data sets, how sure
that is, which checkpoint is best, and what a reader should beware of."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from clipeval import vocabulary
from clipeval.config import Config
from clipeval.names import display_names
from clipeval.reporting import headlines, lawwords, words
from clipeval.reporting.boards import Board, Value
from clipeval.reporting.gaps import Gap
from clipeval.reporting.laws import Law
from clipeval.reporting.scaling import Plot, Scaling
from clipeval.results.columns import records
from clipeval.scaling.questions.compare import A_BETTER, B_BETTER, UNDETERMINED, Comparison

if TYPE_CHECKING:
    import pandas as pd

_MOST = 6
_MOST_PAIRS = 3
_MOST_LAWS = 4
_FEWEST_PAIRS = 3
"""Pairs of the same design below which nothing is said of them."""


Words = tuple[tuple[str, str], ...]
"""Pieces of a sentence, each with the colour of a source in the plot, or none."""


@dataclass(frozen=True)
class Fall:
    """How the error falls with one source, or ``said`` why that is not known; several sources have no colour."""

    colour: str
    source: str
    said: str
    alpha: str = ""


@dataclass(frozen=True)
class Finding:
    """What is seen on one data set: a ``verdict`` of a few words, the numbers it rests on by source, a ``sentence`` on
    their comparison, and what pairs of the same design say ``beside``. ``plot`` is the id of its scaling plot."""

    plot: str
    title: str
    metric: str
    what: str
    verdict: Words
    falls: tuple[Fall, ...]
    sentence: str
    beside: str


@dataclass(frozen=True)
class Best:
    """The best checkpoint of a suite or data set; ``within`` counts others whose intervals meet its own."""

    title: str
    metric: str
    model: str
    full: str
    value: Value
    percent: bool
    within: int


@dataclass(frozen=True)
class Caution:
    """Something to beware of; ``where`` is the section that says more, empty for none."""

    sentence: str
    where: str


@dataclass(frozen=True)
class Findings:
    """The opening of the page; ``short`` has every verdict once with the data sets it is of, ``plots`` stand beside the
    findings, ``why_none`` says why there are none."""

    found: tuple[Finding, ...]
    short: tuple[tuple[Words, str], ...]
    plots: tuple[Plot, ...]
    best: tuple[Best, ...]
    cautions: tuple[Caution, ...]
    why_none: str


def findings(
    rows: pd.DataFrame, scaled: Scaling, boards: Sequence[Board], gaps: Sequence[Gap], config: Config
) -> Findings:
    """The findings on the headline data sets, those that name a source first."""
    pairs = [(_finding(plot), plot) for plot in _headline_plots(scaled, config)]
    pairs.sort(key=lambda pair: not any(colour for colour, _ in pair[0].verdict))
    found, chosen = (tuple(part) for part in zip(*pairs, strict=True)) if pairs else ((), ())
    why = "" if found else _why_none(scaled)
    best = tuple(_best(rows, boards, config))
    return Findings(found, tuple(_short(found)), chosen, best, tuple(_cautions(rows, scaled, gaps)), why)


def _headline_plots(scaled: Scaling, config: Config) -> list[Plot]:
    """The first plot with a law of each headline data set: named ones, then those of which most is known."""
    first: dict[str, Plot] = {}
    for plot in scaled.plots:
        if plot.group.found:
            first.setdefault(plot.cell[1], plot)
    kept = headlines.once(first)

    def order(plot: Plot) -> tuple[bool, bool, tuple[int, int, int, str]]:
        place = headlines.place(plot.cell[1], plot.suite, plot.checkpoints, config)
        named = headlines.is_named(plot.cell[1], plot.suite)
        return not named, not named and len(plot.group.found) < 2, place

    return sorted((plot for name, plot in first.items() if name in kept), key=order)[:_MOST]


def _why_none(scaled: Scaling) -> str:
    if not scaled.plots:
        return "No checkpoint of these results has a known compute, so that no scaling law can be fitted."
    reasons = dict.fromkeys(plot.panel.notes[0] for plot in scaled.plots)
    return next(iter(reasons))


def _finding(plot: Plot) -> Finding:
    _, dataset, metric, shots = plot.cell
    found = plot.group.found
    pairs = [pair for pair in plot.group.pairs if _between(pair, found) and math.isfinite(pair.p_holm)]
    colours = {line.source: line.colour for line in plot.laws}
    return Finding(
        plot=plot.panel.id,
        title=_brief(plot.panel.title.rpartition(" · ")[0]) if plot.suite else vocabulary.dataset(dataset, shots),
        metric=vocabulary.metric(metric).heading,
        what=_what(found),
        verdict=tuple((colours.get(piece, ""), piece) for piece in _verdict(found, pairs)),
        falls=tuple(_falls(plot.group.laws, colours)),
        sentence=" ".join(_compared(found, pairs)),
        beside=_at_equal_design(pairs[0]) if len(found) == 2 and len(pairs) == 1 else "",
    )


def _short(found: Sequence[Finding]) -> Iterator[tuple[Words, str]]:
    titles: dict[Words, list[str]] = {}
    for finding in found:
        titles.setdefault(finding.verdict, []).append(finding.title)
    yield from ((verdict, words.listed(of)) for verdict, of in titles.items())


def _brief(title: str) -> str:
    """A title without what it says in parentheses."""
    return title.partition(" (")[0]


def _what(found: Sequence[Law]) -> str:
    return "loss" if found[0].fit.points.loss else "error"


def _between(pair: Comparison, laws: Sequence[Law]) -> bool:
    return {pair.source_a, pair.source_b} <= {law.source for law in laws}


def _verdict(found: Sequence[Law], pairs: Sequence[Comparison]) -> list[str]:
    """Which source scales better, as far as the corrected tests of equal exponents say: words and names of sources."""
    scaling = [law.source for law in found if law.fit.extrapolates]
    if not scaling:
        return ["No scaling is detected"]
    if len(found) == 1:
        return ["With ", scaling[0], f" the {_what(found)} falls with compute"]
    told = [_order(pair) for pair in _told(pairs)]
    beaten = {law.source: {worse for better, worse in told if better == law.source} for law in found}
    best = next((source for source, losers in beaten.items() if len(losers) == len(found) - 1), "")
    if best:
        others = [law.source for law in found if law.source != best]
        return [best, " scales better than ", others[0] if len(others) == 1 else f"the {len(others)} others"]
    if not told:
        return [f"Which source scales better {'cannot be told' if pairs else 'is not known'}"]
    better, worse = told[0]
    if len(told) == 1:
        return [better, " scales better than ", worse]
    return [f"{len(told)} of {len(pairs)} pairs of sources scale differently"]


def _told(pairs: Sequence[Comparison]) -> list[Comparison]:
    return [pair for pair in pairs if pair.verdict != UNDETERMINED]


def _order(pair: Comparison) -> tuple[str, str]:
    """The source that scales better, and the other."""
    assert pair.verdict in (A_BETTER, B_BETTER)
    return (pair.source_a, pair.source_b) if pair.verdict == A_BETTER else (pair.source_b, pair.source_a)


def _compared(found: Sequence[Law], pairs: Sequence[Comparison]) -> Iterator[str]:
    """Which exponents differ, and of how many that cannot be said."""
    told = sorted(_told(pairs), key=lambda pair: pair.p_holm)
    for pair in told[:_MOST_PAIRS]:
        delta, low, high = pair.alpha.delta, pair.alpha.low, pair.alpha.high
        ends = (-delta, -high, -low) if delta < 0 else (delta, low, high)
        differ = f"differ by {lawwords.interval(*ends)}, {lawwords.surely(pair.p_holm)}"
        better, worse = _order(pair)
        yield (
            f"The exponents {differ}."
            if len(found) == 2
            else f"The exponents of {better} (better) and {worse} {differ}."
        )
    if len(told) > _MOST_PAIRS:
        rest = len(told) - _MOST_PAIRS
        yield f"{rest} further {'pair differs' if rest == 1 else 'pairs differ'}."
    alike = [pair for pair in pairs if pair.verdict == UNDETERMINED]
    if len(alike) == 1:
        [pair] = alike
        who = "The exponents" if len(found) == 2 else f"{pair.source_a} and {pair.source_b}"
        difference = lawwords.interval(pair.alpha.delta, pair.alpha.low, pair.alpha.high)
        alone = f" (alone p = {words.probability(pair.alpha.p)})" if pair.alpha.low * pair.alpha.high > 0 else ""
        yield f"{who} cannot be told apart: difference {difference}, {lawwords.surely(pair.p_holm)}{alone}."
    elif alike:
        yield f"{'None of the other' if told else 'None of the'} {len(alike)} pairs can be told apart."


def _falls(laws: Sequence[Law], colours: Mapping[str, str]) -> Iterator[Fall]:
    """Sources with a law from steep to flat, of many the ends; then those without scaling and those with too few
    points."""
    scaling = sorted((law for law in laws if law.fit.extrapolates), key=lambda law: law.numbers["alpha"])
    falls = [
        Fall(colours.get(law.source, ""), law.source, f"falls by {lawwords.fall(law)}", f"α {lawwords.exponent(law)}")
        for law in scaling
    ]
    if len(falls) > _MOST_LAWS:
        falls[1:-1] = [Fall("", f"{len(falls) - 2} other sources", "between these")]
    yield from falls
    flat = [law for law in laws if law.found and not law.fit.extrapolates]
    few = [law for law in laws if not law.found]
    for own, said in ((flat, "no scaling detected"), (few, "too few checkpoints for a law")):
        if len(own) > _MOST_LAWS:
            yield Fall("", f"{len(own)} other sources", said)
        else:
            yield from (Fall(colours.get(law.source, ""), law.source, said) for law in own)


def _at_equal_design(pair: Comparison) -> str:
    """Whose error is lower between checkpoints of the same architecture and samples seen."""
    design = pair.design
    if design.n < _FEWEST_PAIRS or not math.isfinite(design.ratio_low + design.ratio_high):
        return ""
    same = f"At equal architecture and samples seen ({design.n} pairs)"
    if design.ratio_low <= 1 <= design.ratio_high:
        return f"{same} neither has a clearly lower error."
    lower, ends = (pair.source_a, (design.ratio, design.ratio_low, design.ratio_high))
    if design.ratio > 1:
        lower, ends = pair.source_b, (1 / design.ratio, 1 / design.ratio_high, 1 / design.ratio_low)
    less, least, most = (100 * (1 - end) for end in (ends[0], ends[2], ends[1]))
    return f"{same} the error with {lower} is {lawwords.interval(less, least, most, ' %', most=1)} lower."


def _best(rows: pd.DataFrame, boards: Sequence[Board], config: Config) -> Iterator[Best]:
    """Of every suite, and where there is none of the headline data sets."""
    names = display_names(records(rows[["model", "arch", "source", "pretrained", "samples_seen"]].drop_duplicates()))
    of_suites = [board for board in boards if board.group.startswith("Suites")]
    first: dict[str, Board] = {}
    for board in of_suites or boards:
        first.setdefault(board.dataset, board)
    sizes = {name: len(board.lines) for name, board in first.items()}
    ordered = sorted(first, key=lambda name: headlines.place(name, bool(of_suites), sizes[name], config))
    for name in ordered[:_MOST]:
        board = first[name]
        lines = [line for line in board.lines if line.rank is not None and line.values[0] is not None]
        if not lines:
            continue
        value = lines[0].values[0]
        assert value is not None
        others = [line.values[0] for line in lines[1:]]
        within = sum(other is not None and _meet(value, other) for other in others)
        model = lines[0].model
        metric, percent = vocabulary.metric(board.metrics[0]).heading, board.scales[0].percent
        yield Best(_brief(board.title), metric, names[model], model, value, percent, within)


def _meet(one: Value, other: Value) -> bool:
    return one.low <= other.high and other.low <= one.high


def _cautions(rows: pd.DataFrame, scaled: Scaling, gaps: Sequence[Gap]) -> Iterator[Caution]:
    missing = sum(len(gap.models) for gap in gaps)
    if missing:
        yield Caution(f"{words.count(missing, 'value')} missing or failed", "missing")
    limited = rows[(rows["status"] == "limited").fillna(False).to_numpy(bool)]
    if len(limited):
        models = words.count(limited["model"].nunique(), "checkpoint")
        yield Caution(f"{models} measured on a part of a data set only: no law has them", "leaderboard")
    for sentence in dict.fromkeys(said for result in scaled.laws.results for said in result.card["data"]["mixed"]):
        yield Caution(f"Mixed measurements: {sentence}", "scaling")
    for note in scaled.laws.notes:
        yield Caution(note, "scaling")

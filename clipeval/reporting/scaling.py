"""Scaling: a plot for each data set and metric with the laws of ``clipeval fit``, and the comparisons of sources."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from clipeval import vocabulary
from clipeval.config import Config
from clipeval.names import samples
from clipeval.reporting import headlines, lawwords, words
from clipeval.reporting.boards import whole
from clipeval.reporting.figures import Panel
from clipeval.reporting.lawplots import PIXELS, View, over_compute
from clipeval.reporting.laws import Group, Law, Laws, laws_of
from clipeval.results.columns import are_losses, compute
from clipeval.results.suites import main_metrics
from clipeval.scaling.asked import FAMILY
from clipeval.scaling.output.result import r2_shown
from clipeval.scaling.output.style import MARKERS, Looks, Palette, looks_of, palette_of
from clipeval.scaling.points import Cell, Checkpoints, source_of
from clipeval.scaling.questions.compare import UNDETERMINED, Comparison

if TYPE_CHECKING:
    import pandas as pd

_MOST_COMPARED = 300
_FURTHER = 10
_UNKNOWN = "unknown source"


@dataclass(frozen=True)
class LawLine:
    """One law in words; ``colour`` is that of its line in the plot."""

    colour: str
    source: str
    checkpoints: str
    equation: str
    alpha: str
    fall: str
    further: str
    r2: str
    verdict: str


@dataclass(frozen=True)
class Key:
    """What markers of a plot mean: tints by upstream data set, shapes by architecture, sizes by samples seen."""

    tints: tuple[tuple[str, str], ...]
    shapes: tuple[tuple[str, str], ...]
    sizes: tuple[tuple[float, str], ...]


@dataclass(frozen=True)
class Plot:
    """A scaling plot with its laws in words. ``cell`` is what it shows, ``group`` what was fitted there."""

    panel: Panel
    cell: Cell
    suite: bool
    checkpoints: int
    group: Group
    laws: tuple[LawLine, ...]
    key: Key


@dataclass(frozen=True)
class ComparisonLine:
    """The comparison of two sources on one data set and metric, in words."""

    plot: str
    title: str
    metric: str
    a: str
    b: str
    delta: str
    p: str
    p_holm: str
    crossover: str
    matched: str
    pairs: int
    verdict: str


@dataclass(frozen=True)
class Scaling:
    """The section: plots, the comparisons of sources, how many of them say nothing and are left out, and notes of the
    fit."""

    laws: Laws
    plots: tuple[Plot, ...]
    comparisons: tuple[ComparisonLine, ...]
    left_out: int
    corrected_over: int
    notes: tuple[str, ...]


def scaling(rows: pd.DataFrame, config: Config, laws: Laws | None = None) -> Scaling:
    """A plot for each task, data set, metric and number of shots that has a checkpoint of known compute."""
    laws = laws_of(rows, config) if laws is None else laws
    plots = tuple(_plots(rows, config, laws))
    all_pairs = [(plot, pair) for plot in plots for pair in plot.group.pairs]
    told = [(plot, pair) for plot, pair in all_pairs if math.isfinite(pair.p_holm)]
    told = [item for item in told if len(item[0].group.found) > 1]
    shown = told
    if len(told) > _MOST_COMPARED:
        shown = sorted(told, key=lambda item: item[1].verdict == UNDETERMINED)[:_MOST_COMPARED]
    notes = [note for result in laws.results for note in result.notes]
    return Scaling(
        laws,
        plots,
        tuple(_compared(plot, pair) for plot, pair in shown),
        len(all_pairs) - len(shown),
        max((plot.group.corrected_over for plot in plots), default=0),
        tuple(dict.fromkeys([*laws.notes, *notes])),
    )


def _plots(rows: pd.DataFrame, config: Config, laws: Laws) -> Iterator[Plot]:
    known = rows[(rows["final"] & rows["good"]).to_numpy(bool)]
    known = known.assign(x=compute(known), colour_by=source_of(known, FAMILY).fillna(_UNKNOWN))
    known = known[(known["x"].gt(0) & np.isfinite(known["x"])).to_numpy(bool)]
    fitted = [law.fit.points for group in laws.groups.values() for law in group.laws]
    palette = palette_of([*fitted, *_by_source(known, ("", "", "", None))])
    groups = [
        (headlines.place(dataset, bool(suite), part["model"].nunique(), config), suite, task, dataset, part)
        for (suite, task, dataset), part in known.groupby(["suite", "task", "dataset"], sort=False)
    ]
    groups.sort(key=lambda item: (not item[1], vocabulary.task_place(item[2]), item[0]))
    number = 0
    for _, suite, task, dataset, part in groups:
        for metric in main_metrics(task, dataset, list(part["metric"].dropna().unique()), config):
            for shots, cell in part[(part["metric"] == metric).to_numpy(bool)].groupby(
                "shots", dropna=False, sort=True
            ):
                few = None if math.isinf(whole(shots)) else int(shots)
                found = _Found((task, dataset, metric, few), bool(suite), cell, laws, config, palette)
                yield found.plot(f"scaling-{number}")
                number += 1


@dataclass(frozen=True)
class _Found:
    """One data set and metric, with what it takes to plot it."""

    cell: Cell
    suite: bool
    rows: pd.DataFrame
    laws: Laws
    config: Config
    palette: Palette

    def plot(self, name: str) -> Plot:
        task, dataset, metric, shots = self.cell
        group = self.laws.groups.get(self.cell, Group())
        fitted = [law.fit.points for law in group.laws] if group.found else []
        points = fitted or _by_source(self.rows, self.cell)
        looks = looks_of(points, self.palette)
        rest = self._left_out(points) if fitted else None
        view = View(points, rest, group, looks, metric, _chance(self.cell, self.config))
        title = vocabulary.dataset(dataset, shots)
        suite = self.config.suites.get(dataset) if self.suite else None
        panel = Panel(
            name,
            f"{'Suites' if self.suite else 'Data sets'} · {vocabulary.task(task).title}",
            f"{(suite.title if suite else '') or title} · {vocabulary.metric(metric).heading}",
            over_compute(view),
            tuple(self._notes(group, looks, rest)),
        )
        lines = tuple(_line(law, looks) for law in group.laws) if group.found else ()
        return Plot(panel, self.cell, self.suite, self.rows["model"].nunique(), group, lines, _key(looks))

    def _left_out(self, fitted: Sequence[Checkpoints]) -> Checkpoints | None:
        """The checkpoints in no law, one row each; an error of 0 has no place on a logarithmic axis."""
        models = {model for points in fitted for model in points.table["model"]}
        rest = self.rows[~self.rows["model"].isin(models).to_numpy(bool)].drop_duplicates("model")
        found = _checkpoints(rest, self.cell, "not fitted") if len(rest) else None
        return found.where(found.error > 0) if found is not None else None

    def _notes(self, group: Group, looks: Looks, rest: Checkpoints | None) -> Iterator[str]:
        if not group.found:
            yield f"No law is drawn: {self._why(group)}."
            return
        bands = " with 95 % bands" if looks.few else ""
        yield f"Lines: fitted power laws E = β·Cᵅ{bands}; dashed beyond the data, dotted where no scaling was detected."
        quantile = [law.source for law in group.found if law.fit.frontier == "quantile"]
        if quantile:
            yield (
                f"The line of {words.listed(quantile)} is that of the best tenth (10 % quantile) of its checkpoints, "
                "as clipeval fit draws a frontier: most points lie above it."
            )
        if rest is not None and len(rest.x):
            yield f"{words.count(len(rest.x), 'checkpoint')} outside the fits, as “not fitted” in the legend."
        repeats = len(self.rows) - self.rows["model"].nunique()
        if repeats:
            yield f"{words.count(repeats, 'repeated value')} (draws: averaged; other studies: the first counts)."

    def _why(self, group: Group) -> str:
        scales = self.rows.groupby("colour_by")["x"].nunique()
        if not (scales > 1).any():
            return "no source has checkpoints of different compute"
        return self.laws.refused.get(self.cell[:2], "too few points")


def _by_source(rows: pd.DataFrame, cell: Cell) -> list[Checkpoints]:
    return [_checkpoints(part, cell, str(source)) for source, part in rows.groupby("colour_by", sort=True)]


def _checkpoints(rows: pd.DataFrame, cell: Cell, source: str) -> Checkpoints:
    """Rows as points, in ascending order of compute."""
    rows = rows.sort_values("x", kind="stable")
    loss = bool(are_losses(rows).any())
    value = rows["value"].to_numpy(float)
    n = rows["n"].to_numpy(float, na_value=math.nan)
    return Checkpoints(cell, source, rows["x"].to_numpy(float), value if loss else 1 - value, n, rows, loss)


def _chance(cell: Cell, config: Config) -> float:
    """The error of guessing in percent: of a suite the mean over its data sets; NaN where it is not known."""
    _, dataset, metric, _ = cell
    if metric != "acc1":
        return math.nan
    members = config.members(dataset) if dataset in config.suites else (dataset,)
    known = [config.chances.get(member, math.nan) for member in members]
    return 100 * (1 - math.fsum(known) / len(known)) if known else math.nan


def _line(law: Law, looks: Looks) -> LawLine:
    row, fit = law.numbers, law.fit
    n = str(row["n_models"]) if row["n_models"] == row["n_points"] else f"{row['n_models']} ({row['n_points']} fitted)"
    r2 = r2_shown(row)
    return LawLine(
        colour=looks.lines[law.source],
        source=law.source,
        checkpoints=n,
        equation=lawwords.equation(fit) if fit.extrapolates else lawwords.NO_LAW.get(fit.verdict, "–"),
        alpha=lawwords.exponent(law) if law.found else "–",
        fall=lawwords.fall(law) if fit.extrapolates else "–",
        further=_further(law),
        r2="–" if math.isnan(r2) or not law.found else f"{r2:.3f}",
        verdict=fit.verdict,
    )


def _further(law: Law) -> str:
    """What the law says of ten times the compute of the largest checkpoint."""
    fit = law.fit
    if not fit.extrapolates:
        return "–"
    at = np.array([_FURTHER * fit.points.x.max()])
    value, low, high = (float(fit.points.unit * end[0]) for end in (fit.error(at), *fit.band(at)))
    return lawwords.interval(value, low, high, "" if fit.points.loss else " %", alone=1)


def _key(looks: Looks) -> Key:
    """Of what there is only one kind needs no key."""
    tints = [(colour, source) for (family, source), colour in looks.colours.items() if source != family]
    shapes = [(MARKERS[marker], kind) for kind, marker in looks.markers.items() if kind]
    shown = looks.shown_samples()
    areas = looks.sizes(np.array(shown)).tolist() if shown else []
    sizes = [(round(PIXELS * math.sqrt(area), 1), samples(seen)) for seen, area in zip(shown, areas, strict=True)]
    return Key(
        tuple(tints) if looks.few and len(tints) > 1 else (), tuple(shapes) if len(shapes) > 1 else (), tuple(sizes)
    )


def _compared(plot: Plot, pair: Comparison) -> ComparisonLine:
    laws = [law for law in plot.group.laws if law.source in (pair.source_a, pair.source_b)]
    low = min(law.fit.points.x.min() for law in laws)
    high = max(law.fit.points.x.max() for law in laws)
    design = pair.design
    ratio = lawwords.interval(design.ratio, design.ratio_low, design.ratio_high)
    _, dataset, metric, shots = plot.cell
    better = {"a-scales-better": f"{pair.source_a} scales better", "b-scales-better": f"{pair.source_b} scales better"}
    return ComparisonLine(
        plot=plot.panel.id,
        title=vocabulary.dataset(dataset, shots),
        metric=vocabulary.metric(metric).heading,
        a=pair.source_a,
        b=pair.source_b,
        delta=lawwords.interval(pair.alpha.delta, pair.alpha.low, pair.alpha.high),
        p=words.probability(pair.alpha.p),
        p_holm=words.probability(pair.p_holm),
        crossover=lawwords.crossover(pair, float(low), float(high)),
        matched=ratio if design.n > 1 else "–",
        pairs=design.n if design.n > 1 else 0,
        verdict=better.get(pair.verdict, "cannot be told apart"),
    )

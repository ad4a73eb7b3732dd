"""Curves: linear probes over the number of shots, checkpoints of one run over samples seen, and its training loss."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from clipeval import vocabulary
from clipeval.config import Config
from clipeval.names import NO_NAMES, Names
from clipeval.regular import read_regular
from clipeval.reporting import words
from clipeval.reporting.figures import MOST_VISIBLE, Panel, colours, figure, log_axis, plain, points
from clipeval.reporting.rows import number
from clipeval.results.suites import main_metrics

if TYPE_CHECKING:
    import pandas as pd

_MOST_LOSSES = 400
"""Points of a training loss that are drawn."""
_LINE = {"mode": "lines+markers", "marker": {"size": 7}}

_LOG_BYTES = 1 << 30
_LONGEST = 46
_APART = 0.035
"""Share of the range by which the values at the ends of curves must differ to have room."""
_COLOURS = "A colour is a source; the smaller the model, the paler."


def probe_panels(rows: pd.DataFrame, config: Config, names: Names = NO_NAMES) -> list[Panel]:
    """Per data set: probe accuracy over shots for each checkpoint, beside zero-shot where it was measured."""
    good = rows[(rows["good"] & rows["final"]).to_numpy(bool)]
    probes = good[(good["task"] == "linear_probe").to_numpy(bool)]
    zero_shot = good[(good["task"] == "zeroshot_classification").to_numpy(bool)]
    panels: list[Panel] = []
    for dataset, group in probes.groupby("dataset", sort=True):
        metric = main_metrics("linear_probe", str(dataset), list(group["metric"].dropna().unique()), config)[0]
        at_zero = zero_shot[((zero_shot["dataset"] == dataset) & (zero_shot["metric"] == metric)).to_numpy(bool)]
        of_metric = group[(group["metric"] == metric).to_numpy(bool)]
        title = f"{vocabulary.dataset(str(dataset))} · {vocabulary.metric(metric).heading}"
        panels.append(_probe_panel(f"probe-{len(panels)}", title, metric, of_metric, at_zero, names))
    return panels


def _probe_panel(
    name: str, title: str, metric: str, probes: pd.DataFrame, zero_shot: pd.DataFrame, names: Names
) -> Panel:
    shots = sorted({int(k) for k in probes["shots"].dropna()})
    order = [
        *(["zero-shot"] if len(zero_shot) else []),
        *map(str, shots),
        *(["full"] if probes["shots"].isna().any() else []),
    ]
    axis = {"type": "category", "categoryorder": "array", "categoryarray": order}
    drawn = figure("Training images per class", f"{vocabulary.metric(metric).heading} (%)", xaxis=axis)
    models = list(probes.groupby("model")["value"].max().sort_values(ascending=False).index)
    hues = colours(models)
    lines = []
    for place, model in enumerate(models):
        own = {
            label: part
            for label, part in [
                ("zero-shot", zero_shot[(zero_shot["model"] == model).to_numpy(bool)]),
                *(
                    (str(k), probes[((probes["model"] == model) & (probes["shots"] == k)).fillna(False).to_numpy(bool)])
                    for k in shots
                ),
                ("full", probes[((probes["model"] == model) & probes["shots"].isna()).to_numpy(bool)]),
            ]
            if len(part)
        }
        spread = [_spread(part) for part in own.values()]
        means, low, high = ([100 * point[i] for point in spread] for i in range(3))
        error_y = {
            "type": "data",
            "array": [h - m for m, h in zip(means, high, strict=True)],
            "arrayminus": [m - b for m, b in zip(means, low, strict=True)],
            "thickness": 1,
            "width": 3,
        }
        look = _LINE | {"line": {"color": hues[model]}, "name": _in_legend(names[model]), "error_y": error_y}
        visible = True if place < MOST_VISIBLE else "legendonly"
        first_rows = [int(part["row"].iloc[0]) for part in own.values()]
        hover = "%{x}: %{y:.2f} %"
        drawn["data"].append(points(list(own), means, hover, first_rows, visible=visible, **look))
        found = dict(zip(own, means, strict=True))
        lines.append((names[model], *(f"{found[k]:.1f}" if k in found else "–" for k in order)))
    notes = ["Points: the mean over draws; bars: the range of the draws, or the 95 % interval of a single one."]
    if len(models) > MOST_VISIBLE:
        notes.append(f"The best {MOST_VISIBLE} of {len(models)} checkpoints are drawn; switch others on in the legend.")
    return Panel(name, "Linear probe", title, drawn, tuple(notes), ("Model", *order), tuple(lines))


def _in_legend(name: str) -> str:
    """A name for a legend: a long one without its middle, so that architecture and tag stay."""
    return plain(name if len(name) <= _LONGEST else f"{name[: _LONGEST - 16]}…{name[-15:]}")


def _spread(part: pd.DataFrame) -> tuple[float, float, float]:
    """Mean, lower and upper end of what one point stands for."""
    values = part["value"].to_numpy(float)
    if len(values) > 1:
        return float(values.mean()), float(values.min()), float(values.max())
    low, high = number(part["ci_low"].iloc[0]), number(part["ci_high"].iloc[0])
    return (float(values[0]), *((low, high) if math.isfinite(low) else (float(values[0]),) * 2))


def learning_panels(rows: pd.DataFrame, config: Config, names: Names = NO_NAMES) -> list[Panel]:
    """Per data set: the checkpoints of each training run over samples seen; and the training loss of runs whose log is
    on this machine."""
    good = rows[(rows["good"] & rows["samples_seen"].gt(0)).to_numpy(bool)]
    several = good.groupby(["run", "arch"], dropna=False)["samples_seen"].transform("nunique") > 1
    curves = good[several.to_numpy(bool)]
    runs = _Runs(rows, names)
    panels: list[Panel] = []
    keys = ["task", "dataset", "shots"]
    for key, group in curves.groupby(keys, dropna=False, sort=True):
        task, dataset, shots = str(key[0]), str(key[1]), number(key[2])
        metric = main_metrics(task, dataset, list(group["metric"].dropna().unique()), config)[0]
        part = group[(group["metric"] == metric).to_numpy(bool)]
        part = part[(part.groupby("run")["samples_seen"].transform("nunique") > 1).to_numpy(bool)]
        if len(part):
            title = vocabulary.dataset(dataset, None if math.isnan(shots) else int(shots))
            menu = vocabulary.task(task).title, f"{title} · {vocabulary.metric(metric).heading}"
            panels.append(_learning_panel(f"learning-{len(panels)}", *menu, metric, part, runs))
    losses = {run: log for run in dict.fromkeys(rows["run"]) if (log := _loss(Path(run) / "log.jsonl"))}
    if losses:
        panels.append(_loss_panel(f"learning-{len(panels)}", losses, runs))
    return panels


class _Runs:
    """How training runs look: a colour per source, paler for smaller models of it."""

    def __init__(self, rows: pd.DataFrame, names: Names) -> None:
        facts = rows[["run", "source", "gmacs"]].drop_duplicates("run").set_index("run")
        self._names = names
        sources = facts["source"].fillna("unknown source").astype(str)
        hues = colours(sources.value_counts().index)
        sizes = facts["gmacs"].astype(float).fillna(0.0).round(6)
        scale = sorted(set(sizes))
        self._colours = {
            str(run): pale(hues[source], 1 - (scale.index(size) + 1) / len(scale))
            for run, source, size in zip(facts.index, sources, sizes, strict=True)
        }
        self._places = {
            str(run): (source, -size) for run, source, size in zip(facts.index, sources, sizes, strict=True)
        }

    def colour(self, run: str) -> str:
        return self._colours[run]

    def name(self, run: str) -> str:
        return self._names[run] if run in self._names.short else run.removeprefix(self._names.folder)

    def ordered(self, runs: Iterable[str]) -> list[str]:
        """By source, large models first."""
        return sorted(map(str, runs), key=lambda run: (*self._places[run], run))


def pale(colour: str, share: float) -> str:
    """A colour mixed with up to 60 % of a grey that is seen on white and on black."""
    mixed = (round(int(colour[i : i + 2], 16) * (1 - 0.6 * share) + 0xB4 * 0.6 * share) for i in (1, 3, 5))
    return "#" + "".join(f"{part:02x}" for part in mixed)


def _learning_panel(name: str, group: str, title: str, metric: str, part: pd.DataFrame, runs: _Runs) -> Panel:
    drawn = figure("Samples seen", f"{vocabulary.metric(metric).heading} (%)", xaxis=log_axis(part["samples_seen"]))
    lines, ends = [], []
    parts = {str(run): own for run, own in part.groupby("run", sort=False)}
    for place, run in enumerate(runs.ordered(parts)):
        own = parts[run].sort_values("samples_seen").drop_duplicates("samples_seen", keep="last")
        y, seen = (100 * own["value"]).to_list(), own["samples_seen"].to_list()
        visible = True if place < MOST_VISIBLE else "legendonly"
        colour = runs.colour(run)
        look = _LINE | {"line": {"color": colour}, "marker": {"size": 5}, "name": _in_legend(runs.name(run))}
        hover = "%{x:.4~s} samples: %{y:.2f} %"
        drawn["data"].append(points(seen, y, hover, own["row"], visible=visible, **look))
        if visible is True:
            ends.append((seen[-1], y[-1], f"{y[-1]:.1f}", colour))
        lines.append(
            (runs.name(run), str(len(own)), words.size(seen[0]), words.size(seen[-1]), f"{y[0]:.1f}", f"{y[-1]:.1f}")
        )
    drawn["layout"] |= _end_values(ends, log=True)
    notes = [_COLOURS]
    if len(lines) > MOST_VISIBLE:
        notes.append(f"{MOST_VISIBLE} of {len(lines)} runs are drawn; switch others on in the legend.")
    head = ("Run", "Checkpoints", "First at", "Last at", "First (%)", "Last (%)")
    return Panel(name, group, title, drawn, tuple(notes), head, tuple(lines))


def _end_values(ends: Sequence[tuple[float, float, str, str]], log: bool = False) -> dict[str, Any]:
    """The last value of each curve at its end, from the best on; those that would lie on another are left out."""
    span = max((y for _, y, *_ in ends), default=0.0) - min((y for _, y, *_ in ends), default=0.0)
    kept: list[tuple[float, float, str, str]] = []
    for end in sorted(ends, key=lambda end: -end[1]):
        if all(abs(end[1] - other[1]) > _APART * span for other in kept):
            kept.append(end)
    look = {"showarrow": False, "xanchor": "left", "xshift": 6}
    annotations = [
        {"x": math.log10(x) if log else x, "y": y, "text": said, "font": {"color": colour, "size": 11}, **look}
        for x, y, said, colour in kept
    ]
    return {"annotations": annotations, "margin": {"l": 56, "r": 44, "t": 12, "b": 48}}


def _loss_panel(name: str, losses: dict[str, list[tuple[float, float]]], runs: _Runs) -> Panel:
    drawn = figure("Samples seen", "Training loss")
    lines, ends = [], []
    for place, run in enumerate(runs.ordered(losses)):
        log = losses[run]
        step = -(-len(log) // _MOST_LOSSES)
        kept = [*log[:-1:step], log[-1]]
        colour = runs.colour(run)
        visible = True if place < MOST_VISIBLE else "legendonly"
        drawn["data"].append(
            {
                "type": "scatter",
                "mode": "lines",
                "x": [samples for samples, _ in kept],
                "y": [loss for _, loss in kept],
                "name": _in_legend(runs.name(run)),
                "line": {"color": colour, "width": 1.5},
                "hovertemplate": "%{x:.4~s} samples: %{y:.4f}",
                "visible": visible,
            }
        )
        if visible is True:
            ends.append((*kept[-1], f"{kept[-1][1]:.2f}", colour))
        lines.append((runs.name(run), words.size(log[-1][0]), f"{log[-1][1]:.4f}"))
    drawn["layout"] |= _end_values(ends)
    head = ("Run", "Samples seen", "Last loss")
    return Panel(name, "Training", "Training loss", drawn, (_COLOURS,), head, tuple(lines))


def _loss(path: Path) -> list[tuple[float, float]]:
    """(samples, loss) of a trainer's log; empty where there is none that can be read."""
    try:
        return list(_points_of(read_regular(path, _LOG_BYTES).decode("utf-8").splitlines()))
    except (OSError, ValueError):  # a name with a NUL, bytes that are no text
        return []


def _points_of(lines: list[str]) -> Iterator[tuple[float, float]]:
    for line in lines:
        try:
            entry: Any = json.loads(line)
            point = float(entry["samples"]), float(entry["loss"])
        except (ValueError, KeyError, TypeError, RecursionError):
            continue  # a line of another kind, or one that a killed run left half written
        if np.isfinite(point).all():
            yield point

"""Curves: linear probes over the number of shots, checkpoints of one run over samples seen, and its training loss."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from clipeval import vocabulary
from clipeval.config import Config
from clipeval.regular import read_regular
from clipeval.reporting import words
from clipeval.reporting.figures import MOST_VISIBLE, Panel, colours, figure, legend_name, log_axis, points
from clipeval.reporting.rows import number
from clipeval.results.suites import main_metrics

if TYPE_CHECKING:
    import pandas as pd

_MOST_LOSSES = 400
"""Points of a training loss that are drawn."""
_LINE = {"mode": "lines+markers", "marker": {"size": 7}}

_LOG_BYTES = 1 << 30


def probe_panels(rows: pd.DataFrame, config: Config) -> list[Panel]:
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
        panels.append(_probe_panel(f"probe-{len(panels)}", title, metric, of_metric, at_zero))
    return panels


def _probe_panel(name: str, title: str, metric: str, probes: pd.DataFrame, zero_shot: pd.DataFrame) -> Panel:
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
        look = _LINE | {"line": {"color": hues[model]}, "name": legend_name(model), "error_y": error_y}
        visible = True if place < MOST_VISIBLE else "legendonly"
        first_rows = [int(part["row"].iloc[0]) for part in own.values()]
        hover = "%{x}: %{y:.2f} %"
        drawn["data"].append(points(list(own), means, hover, first_rows, visible=visible, **look))
        found = dict(zip(own, means, strict=True))
        lines.append((model, *(f"{found[k]:.1f}" if k in found else "–" for k in order)))
    notes = ["Points: the mean over draws; bars: the range of the draws, or the 95 % interval of a single one."]
    if len(models) > MOST_VISIBLE:
        notes.append(f"The best {MOST_VISIBLE} of {len(models)} checkpoints are drawn; switch others on in the legend.")
    return Panel(name, "Linear probe", title, drawn, tuple(notes), ("Model", *order), tuple(lines))


def _spread(part: pd.DataFrame) -> tuple[float, float, float]:
    """Mean, lower and upper end of what one point stands for."""
    values = part["value"].to_numpy(float)
    if len(values) > 1:
        return float(values.mean()), float(values.min()), float(values.max())
    low, high = number(part["ci_low"].iloc[0]), number(part["ci_high"].iloc[0])
    return (float(values[0]), *((low, high) if math.isfinite(low) else (float(values[0]),) * 2))


def learning_panels(rows: pd.DataFrame, config: Config) -> list[Panel]:
    """Per data set: the checkpoints of each training run over samples seen; and the training loss of runs whose log is
    on this machine."""
    good = rows[(rows["good"] & rows["samples_seen"].gt(0)).to_numpy(bool)]
    several = good.groupby(["run", "arch"], dropna=False)["samples_seen"].transform("nunique") > 1
    curves = good[several.to_numpy(bool)]
    panels: list[Panel] = []
    keys = ["task", "dataset", "shots"]
    for key, group in curves.groupby(keys, dropna=False, sort=True):
        task, dataset, shots = str(key[0]), str(key[1]), number(key[2])
        metric = main_metrics(task, dataset, list(group["metric"].dropna().unique()), config)[0]
        part = group[(group["metric"] == metric).to_numpy(bool)]
        part = part[(part.groupby("run")["samples_seen"].transform("nunique") > 1).to_numpy(bool)]
        if len(part):
            title = vocabulary.dataset(dataset, None if math.isnan(shots) else int(shots))
            panels.append(
                _learning_panel(
                    f"learning-{len(panels)}",
                    vocabulary.task(task).title,
                    f"{title} · {vocabulary.metric(metric).heading}",
                    metric,
                    part,
                )
            )
    losses = {run: log for run in dict.fromkeys(rows["run"]) if (log := _loss(Path(run) / "log.jsonl"))}
    if losses:
        panels.append(_loss_panel(f"learning-{len(panels)}", losses))
    return panels


def _learning_panel(name: str, group: str, title: str, metric: str, part: pd.DataFrame) -> Panel:
    drawn = figure("Samples seen", f"{vocabulary.metric(metric).heading} (%)", xaxis=log_axis(part["samples_seen"]))
    hues = colours(part["run"])
    lines = []
    for place, (run, own) in enumerate(part.groupby("run", sort=False)):
        own = own.sort_values("samples_seen").drop_duplicates("samples_seen", keep="last")
        y = (100 * own["value"]).to_list()
        look = _LINE | {"line": {"color": hues[str(run)]}, "marker": {"size": 5}, "name": legend_name(run)}
        visible = True if place < MOST_VISIBLE else "legendonly"
        seen = own["samples_seen"].to_list()
        hover = "%{x:.4~s} samples: %{y:.2f} %"
        drawn["data"].append(points(seen, y, hover, own["row"], visible=visible, **look))
        lines.append(
            (str(run), str(len(own)), words.size(seen[0]), words.size(seen[-1]), f"{y[0]:.1f}", f"{y[-1]:.1f}")
        )
    notes = (
        (f"{MOST_VISIBLE} of {len(lines)} runs are drawn; switch others on in the legend.",)
        if len(lines) > MOST_VISIBLE
        else ()
    )
    head = ("Run", "Checkpoints", "First at", "Last at", "First (%)", "Last (%)")
    return Panel(name, group, title, drawn, notes, head, tuple(lines))


def _loss_panel(name: str, losses: dict[str, list[tuple[float, float]]]) -> Panel:
    drawn = figure("Samples seen", "Training loss")
    hues = colours(losses)
    for place, (run, log) in enumerate(losses.items()):
        step = -(-len(log) // _MOST_LOSSES)
        kept = [*log[:-1:step], log[-1]]
        drawn["data"].append(
            {
                "type": "scatter",
                "mode": "lines",
                "x": [samples for samples, _ in kept],
                "y": [loss for _, loss in kept],
                "name": legend_name(run),
                "line": {"color": hues[run], "width": 1.5},
                "hovertemplate": "%{x:.4~s} samples: %{y:.4f}",
                "visible": True if place < MOST_VISIBLE else "legendonly",
            }
        )
    lines = tuple((run, words.size(log[-1][0]), f"{log[-1][1]:.4f}") for run, log in losses.items())
    return Panel(name, "Training", "Training loss", drawn, (), ("Run", "Samples seen", "Last loss"), lines)


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

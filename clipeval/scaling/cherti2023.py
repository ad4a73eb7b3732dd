"""The paper's own fit: Cherti et al., CVPR 2023, arXiv:2212.07143 (figures.ipynb of LAION-AI/scaling-laws-openclip).

LAION's line is fitted to the lowest error in each of five bins of compute, CLIP-WIT's to its three checkpoints. The
linear probes (scaling_plot.ipynb of LAION-AI/CLIP_benchmark) are fitted to all checkpoints of either source.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from clipeval.results.columns import COMPUTE, numbers, task_name
from clipeval.scaling.fitted import Fit
from clipeval.scaling.questions.forecast import Forecast, Measured, Target, parse, predict
from clipeval.scaling.recipe import Recipe

if TYPE_CHECKING:
    import pandas as pd

PRESET = STUDY = "cherti2023"
FRONTIERS = {"zeroshot_classification": "cherti2023", "zeroshot_retrieval": "cherti2023"}
METRICS = {"zeroshot_retrieval": ("image_retrieval_recall@5",)}
"""The paper's figures of retrieval show image retrieval only."""
SOURCE = "LAION"
"""The paper forecasts from LAION's line only."""
SAMPLES = {"3B": 12 * 213_334_440.0, "13B": 32 * 407_332_084.0, "34B": 84 * 407_332_084.0, "68B": 168 * 407_332_084.0}
"""What its labels of samples seen stand for in forecasts."""
_HEADLINE = {
    "zeroshot_classification": ("imagenet1k", "imagenet_robustness"),
    "zeroshot_retrieval": ("mscoco_captions", "flickr30k"),
    "linear_probe": ("imagenet1k", "cifar100", "vtab"),
}
_EXTRAPOLATED = ("ViT-H-14:68B", "ViT-g-14:34B", "ViT-g-14:68B", "ViT-G-14:34B", "ViT-G-14:68B")
_GMACS_OF_G_14 = 532.92
"""From the paper's arch_info.csv; no checkpoint of its table has this architecture."""
_LATER = ("ViT-g-14,laion2b_s34b_b88k", "ViT-bigG-14,laion2b_s39b_b160k")
"""Checkpoints on LAION-2B that appeared after the forecast, as open_clip's tables name them."""
BEST_OF_PAPER = "best of the paper's data scales"
"""Marks the predictions in sample, which the terminal sums up in one line."""


def default_rows(published: pd.DataFrame, task: str | None, datasets: Sequence[str] | None) -> pd.DataFrame:
    """The paper's own rows: zero-shot unless a task is named, of the data sets in its figures unless some are named."""
    own = published[published["study"].isin([STUDY]).to_numpy(bool)]
    own = own[own["task"].isin([task_name(task, own)] if task else list(FRONTIERS)).to_numpy(bool)]
    if datasets is not None:
        return own
    shown = [dataset in _HEADLINE.get(name, ()) for name, dataset in zip(own["task"], own["dataset"], strict=True)]
    return own[np.array(shown, dtype=bool)] if any(shown) else own


def as_published(rows: pd.DataFrame) -> pd.DataFrame:
    """With the checkpoint of another compute that is in the paper's linear-probe fits, but not in its figures."""
    if "from_scratch_filter" not in rows:
        return rows
    reasons = rows["from_scratch_filter"]
    return rows.assign(from_scratch_filter=reasons.mask(reasons.fillna("").str.startswith("wrong GMACs")))


def recipe(recipe: Recipe, task: str) -> Recipe:
    """The paper's frontier for a task: bins for zero-shot results, none for probes."""
    return replace(recipe, frontier=recipe.frontier or FRONTIERS.get(task, "none"))


def forecasts(fits: Sequence[Fit], table: pd.DataFrame, later: pd.DataFrame) -> list[Forecast]:
    """The paper's predictions: in sample at its nominal samples seen, its extrapolations, and checkpoints of the table
    ``later`` that appeared since, each at its own compute."""
    found = []
    named = cache(lambda word: parse(word, table, SAMPLES))
    for fit in fits:
        if fit.points.source != SOURCE or fit.points.cell[0] not in FRONTIERS:
            continue
        for word, best in _in_sample(fit).items():
            found.append(predict(fit, named(word), (COMPUTE,), Measured(best, BEST_OF_PAPER)))
        for word in _EXTRAPOLATED:
            target = named(word)
            if word.startswith("ViT-G-14:"):
                target = replace(target, sizes=target.sizes | {"gmacs": _GMACS_OF_G_14})
            found.append(predict(fit, target, (COMPUTE,)))
        for row in _later(fit, later).to_dict("records"):
            sizes = {"gmacs": row["gmacs_total"] / row["samples_seen"], "samples_seen": row["samples_seen"]}
            target = Target(row["model"], row["arch"], sizes)
            found.append(predict(fit, target, (COMPUTE,), Measured(row["value"], row["model"])))
    return found


def mean_absolute_errors(found: Sequence[Forecast]) -> dict[tuple[str, str], tuple[float, int]]:
    """By data set and metric: the mean error of the in-sample predictions in percentage points, and their number."""
    errors: dict[tuple[str, str], list[float]] = {}
    for forecast in found:
        if forecast.measured.model == BEST_OF_PAPER:
            _, dataset, metric, _ = forecast.cell
            errors.setdefault((dataset, metric), []).append(100 * abs(forecast.predicted - forecast.measured.value))
    return {key: (float(np.mean(values)), len(values)) for key, values in errors.items()}


def remarks(found: Sequence[Forecast]) -> list[str]:
    """The paper's mean absolute errors, as sentences."""
    return [
        f"{dataset}: mean absolute error of the {n} predictions in sample, at nominal samples seen: {mean:.6f} points"
        for (dataset, _), (mean, n) in mean_absolute_errors(found).items()
    ]


def _in_sample(fit: Fit) -> dict[str, float]:
    """The best value of each architecture and label of samples seen, over the data scales."""
    best: dict[str, float] = {}
    table = fit.points.table
    for arch, samples, error in zip(table["arch"], numbers(table, "samples_seen"), fit.points.error, strict=True):
        label = min(("3B", "13B", "34B"), key=lambda label: abs(np.log(SAMPLES[label] / samples)))
        word = f"{arch}:{label}"
        best[word] = max(best.get(word, 0.0), float(1 - error))
    return best


def _later(fit: Fit, later: pd.DataFrame) -> pd.DataFrame:
    task, dataset, metric, _ = fit.points.cell
    for column, values in (("task", [task]), ("dataset", [dataset]), ("metric", [metric]), ("model", _LATER)):
        later = later[later[column].isin(values).to_numpy(bool)]
    return later

"""How tasks, metrics and values are written on the page."""

from __future__ import annotations

import math

from clipeval.scaling import names
from clipeval.tables import human
from clipeval.tasks import TASKS

_TASKS = {"zeroshot": "Zero-shot, all tasks", "finetune": "Fine-tuning"}
_METRICS = {
    "acc1": "Top-1",
    "acc5": "Top-5",
    "mean_per_class_recall": "Mean per class",
    "mean_average_precision": "mAP",
    "main_metric": "Mean of main metrics",
    "mean_recall@1": "Mean R@1",
}


def task(name: str) -> str:
    """``Zero-shot classification``"""
    return TASKS[name].title if name in TASKS else _TASKS.get(name, name)


def metric(name: str) -> str:
    """``Top-1``, ``Text→image R@5``"""
    if name in _METRICS:
        return _METRICS[name]
    return name.replace("image_retrieval_recall@", "Text→image R@").replace("text_retrieval_recall@", "Image→text R@")


def dataset(name: str, shots: int | None = None) -> str:
    """``ImageNet, 10 shots``; a data set without another name keeps its own."""
    return names.dataset(name, shots)


def percent(value: float, digits: int = 1) -> str:
    """0.735 as ``73.5``"""
    return f"{100 * value:.{digits}f}" if math.isfinite(value) else "–"


def points(value: float) -> str:
    """A difference of proportions in percentage points, with its sign."""
    return f"{100 * value:+.1f}".replace("-", "−") if math.isfinite(value) else "–"


def size(value: float) -> str:
    """A large number with a metric suffix: 12.8B; a dash when unknown or not finite."""
    return human(value if math.isfinite(value) else None)


def probability(p: float) -> str:
    """A p value: ``0.012``, ``3e-07``, ``< 1e-12``"""
    if not math.isfinite(p):
        return "–"
    if p < 1e-12:
        return "< 1e-12"
    return f"{p:.3f}" if p >= 0.001 else f"{p:.0e}"


def count(n: int, noun: str) -> str:
    """``1 checkpoint``, ``12,345 checkpoints``"""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"

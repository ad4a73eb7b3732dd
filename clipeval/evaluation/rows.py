"""Rows of the results table from a finished, skipped or failed cell."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from clipeval.datasets.subset import Subset
from clipeval.models.base import ModelInfo
from clipeval.results import provenance
from clipeval.results.ledger import Row
from clipeval.version import __version__

if TYPE_CHECKING:
    from clipeval.datasets.base import Dataset
    from clipeval.evaluation.plan import Cell, Options, Plan
    from clipeval.tasks.base import TaskResult


def metric_rows(
    cell: Cell, info: ModelInfo, dataset: Dataset, result: TaskResult, options: Options, timing: dict[str, Any]
) -> list[Row]:
    """One row per metric of a measured cell."""
    shared = _shared(cell, info, dataset, options) | timing
    if result.notes:
        shared["notes"] = json.dumps(result.notes, sort_keys=True)
    limited = isinstance(dataset, Subset)
    return [
        shared
        | {
            "metric": metric.name,
            "value": metric.value,
            "ci_low": metric.ci_low,
            "ci_high": metric.ci_high,
            "n": metric.n,
            "higher_is_better": metric.higher_is_better,
            "status": "limited" if limited and metric.status == "ok" else metric.status,
            "error": metric.error,
        }
        for metric in result.metrics
    ]


def failed_row(cell: Cell, plan: Plan, options: Options, reason: str, status: str) -> Row:
    """The one row of a cell that was not measured: which value is missing, and why."""
    info = plan.infos.get(cell.model.name) or ModelInfo(cell.model.name, cell.model.arch, cell.model.pretrained)
    shared = _shared(cell, info, plan.datasets.get(cell.dataset), options)
    return shared | {
        "device": None,
        "metric": cell.entry.main_metric or cell.task.main_metric,
        "value": math.nan,
        "status": status,
        "error": reason,
    }


def _shared(cell: Cell, info: ModelInfo, dataset: Dataset | None, options: Options) -> Row:
    return asdict(info) | {
        "dataset": cell.dataset,
        "split": cell.entry.split,
        "dataset_fingerprint": dataset.fingerprint if dataset else None,
        "task": cell.task.name,
        "shots": cell.shots,
        "seed": cell.seed,
        "task_version": cell.task.version,
        "precision": cell.precision,
        "device": options.device,
        "clipeval_version": __version__,
        "git_commit": provenance.git_commit(),
        "packages": provenance.packages(),
        "prompts": dataset.prompts.name if dataset and dataset.prompts and "prompts" in cell.task.needs else None,
        "protocol": cell.protocol,
        "limit": cell.limit,
    }

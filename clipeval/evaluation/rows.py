"""Rows of the results table from a finished, skipped or failed cell. What describes its checkpoint is not in them."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from clipeval.datasets.subset import Subset
from clipeval.models.base import ModelInfo
from clipeval.plain import printable, public
from clipeval.results import provenance
from clipeval.results.ledger import Row
from clipeval.results.schema import REMARKS, Status

if TYPE_CHECKING:
    from clipeval.datasets.base import Dataset
    from clipeval.evaluation.cell import Cell
    from clipeval.tasks.base import Metric, TaskResult

_LONGEST_REASON = 10_000


def metric_rows(
    cell: Cell,
    info: ModelInfo,
    dataset: Dataset,
    result: TaskResult,
    timing: dict[str, Any],
    remarks: Sequence[str] = (),
) -> list[Row]:
    """One row per metric of a measured cell; ``remarks`` are sentences for its notes."""
    shared = _shared(cell, info, dataset) | timing | _notes(result.notes, remarks)
    limited = isinstance(dataset, Subset)
    rows = [shared | of_metric(metric) for metric in result.metrics]
    return [row | {"status": "limited"} if limited and row["status"] == "ok" else row for row in rows]


def of_metric(metric: Metric) -> Row:
    """The columns that a metric fills."""
    return {
        "metric": metric.name,
        "value": metric.value,
        "ci_low": metric.ci_low,
        "ci_high": metric.ci_high,
        "n": metric.n,
        "higher_is_better": metric.higher_is_better,
        "status": metric.status,
        "error": public(metric.error),
    }


def failed_row(
    cell: Cell, info: ModelInfo, dataset: Dataset | None, reason: str, status: Status, remarks: Sequence[str] = ()
) -> Row:
    """The one row of a cell that was not measured: which value is missing, and why."""
    return (_shared(cell, info, dataset) | _notes({}, remarks)) | {
        "metric": cell.main_metric,
        "value": math.nan,
        "status": status,
        "error": public(reason)[:_LONGEST_REASON],
    }


def _notes(notes: dict[str, object], remarks: Sequence[str]) -> Row:
    """The column ``notes``: a JSON object, with ``remarks`` for people."""
    found = notes | ({REMARKS: [printable(sentence) for sentence in dict.fromkeys(remarks)]} if remarks else {})
    return {"notes": json.dumps(found, sort_keys=True)} if found else {}


def _shared(cell: Cell, info: ModelInfo, dataset: Dataset | None) -> Row:
    prompts = dataset.prompts if dataset and "prompts" in cell.task.needs else None
    return {
        "model": cell.model.name,
        "checkpoint_sha256": info.checkpoint_sha256,
        "checkpoint_identity": cell.checkpoint.digest if cell.checkpoint else None,
        "dataset": cell.dataset,
        "split": cell.entry.split,
        "dataset_fingerprint": dataset.fingerprint if dataset else None,
        "train_fingerprint": cell.data.train if cell.data else None,
        "task": cell.task.name,
        "shots": cell.shots,
        "seed": cell.seed,
        "task_version": cell.task.version,
        "precision": cell.precision,
        "device": None,
        **provenance.columns(),
        "prompts": prompts.name if prompts else None,
        "prompts_digest": cell.data.prompts if prompts and cell.data else None,
        "protocol": cell.protocol,
        "limit": cell.limit,
        "revision": " ".join(filter(None, (cell.model.commit, dataset.revision if dataset else ""))) or None,
    }

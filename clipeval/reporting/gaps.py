"""What is missing: measurements that failed or were skipped, and checkpoints without a data set that others have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from clipeval import vocabulary
from clipeval.reporting.rows import number, why_missing
from clipeval.results.columns import records

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Gap:
    """One reason why ``models`` lack a value; ``row`` is one of the rows that say so, -1 where there is none."""

    dataset: str
    task: str
    why: str
    models: tuple[str, ...]
    row: int


def gaps(rows: pd.DataFrame) -> list[Gap]:
    """All gaps: failures first, then what was skipped, then what is in no row."""
    found: dict[tuple[str, str, str], tuple[list[str], int]] = {}
    for row in records(rows[~rows["good"]]):
        key = (_title(row["dataset"], number(row["shots"])), vocabulary.task(str(row["task"])).title, why_missing(row))
        found.setdefault(key, ([], row["row"]))[0].append(str(row["model"]))
    recorded = [Gap(*key, tuple(dict.fromkeys(models)), row) for key, (models, row) in found.items()]
    recorded.sort(key=lambda gap: (gap.why.startswith("skipped"), gap.dataset))
    return [*recorded, *_absent(rows[rows["final"].to_numpy(bool)])]


def _absent(rows: pd.DataFrame) -> list[Gap]:
    """Data sets that some checkpoints of the same task have and others do not."""
    absent = []
    for task in sorted(rows["task"].dropna().unique(), key=vocabulary.task_place):
        own = rows[((rows["task"] == task) & ~rows["suite"]).to_numpy(bool)]
        models = list(dict.fromkeys(map(str, own["model"])))
        for (dataset, shots), group in own.groupby(["dataset", "shots"], dropna=False, sort=True):
            there = set(map(str, group["model"]))
            lacking = tuple(model for model in models if model not in there)
            if lacking:
                title = _title(dataset, number(shots))
                absent.append(Gap(title, vocabulary.task(str(task)).title, "not in these results", lacking, -1))
    return absent


def _title(dataset: object, shots: float) -> str:
    return vocabulary.dataset(str(dataset), None if shots != shots else int(shots))

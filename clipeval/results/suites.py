"""Suite averages: the mean over a suite's data sets is a row of its own, or an error row that names what is missing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from clipeval.models.base import ModelInfo
from clipeval.results.ledger import Row

COMPOUND_METRICS = {"mean_recall@1": ("image_retrieval_recall@1", "text_retrieval_recall@1")}
"""Metrics that are the mean of several rows of the table."""

_IDENTITY = ("model", "task", "shots", "seed", "protocol", "limit", "precision", "prompts")
_SHARED = (*_IDENTITY, *ModelInfo.__dataclass_fields__, "device", "clipeval_version", "git_commit", "packages")


@dataclass(frozen=True)
class SuiteRequest:
    """A suite that somebody asked for. ``members`` pairs each data set with the metric that counts for it."""

    name: str
    metric: str
    members: tuple[tuple[str, str], ...]
    tasks: tuple[str, ...]
    """The tasks whose rows are averaged; more than one for suites that mix tasks, whose rows then have task
    ``zeroshot``."""

    def to_json(self) -> dict[str, Any]:
        """The request as JSON values, for the ledger."""
        return {**asdict(self), "members": [list(pair) for pair in self.members], "tasks": list(self.tasks)}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> SuiteRequest:
        """The inverse of ``to_json``."""
        members = tuple((dataset, metric) for dataset, metric in value["members"])
        return cls(value["name"], value["metric"], members, tuple(value["tasks"]))


def suite_rows(suite: SuiteRequest, rows: Sequence[Row]) -> list[Row]:
    """The averages of one suite, one for every checkpoint (and shots, seed...) that was measured on any member.

    The 95 % interval treats the data sets as given and their errors as independent: the half width of the mean is
    the root of the summed squares of the members' half widths, divided by their number.
    """
    names = {dataset for dataset, _ in suite.members}
    groups: dict[tuple[Any, ...], dict[tuple[str, str], Row]] = {}
    for row in rows:
        if row["dataset"] in names and row["task"] in suite.tasks and row["status"] != "skipped":
            row = row if len(suite.tasks) == 1 else {**row, "task": "zeroshot"}
            key = tuple(row.get(name) for name in _IDENTITY if name != "prompts")
            groups.setdefault(key, {})[row["dataset"], row.get("metric") or ""] = row
    return [_average(suite, group) for group in groups.values()]


def _average(suite: SuiteRequest, group: dict[tuple[str, str], Row]) -> Row:
    any_row = next(iter(group.values()))
    row = {name: any_row.get(name) for name in _SHARED} | {
        "dataset": suite.name,
        "metric": suite.metric,
        "higher_is_better": True,
        "reference": f"mean of {len(suite.members)} data sets",
    }
    members = [_member_values(group, dataset, metric) for dataset, metric in suite.members]
    missing = [dataset for (dataset, _), values in zip(suite.members, members, strict=True) if not values]
    row["n"] = len(members) - len(missing)
    if missing:
        named = ", ".join(missing)
        return row | {
            "value": math.nan,
            "status": "error",
            "error": f"{len(missing)} of {len(members)} missing: {named}",
        }
    mean = math.fsum(math.fsum(r["value"] for r in values) / len(values) for values in members) / len(members)
    variance = math.fsum(
        math.fsum(((r["ci_high"] - r["ci_low"]) / 2 / len(values)) ** 2 for r in values) for values in members
    )
    half = math.sqrt(variance) / len(members)
    limited = any(r["status"] == "limited" for values in members for r in values)
    return row | {
        "value": mean,
        "ci_low": max(0.0, mean - half),
        "ci_high": min(1.0, mean + half),
        "status": "limited" if limited else "ok",
    }


def _member_values(group: dict[tuple[str, str], Row], dataset: str, metric: str) -> list[Row]:
    found = [group.get((dataset, name)) for name in COMPOUND_METRICS.get(metric, (metric,))]
    good = [row for row in found if row is not None and row["status"] in ("ok", "limited")]
    return good if len(good) == len(found) else []

"""Suite averages: the mean over a suite's data sets is a row of its own, or an error row that says what is wrong."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from clipeval import vocabulary
from clipeval.config import Config
from clipeval.errors import few
from clipeval.models.base import ModelInfo
from clipeval.results.ledger import Row
from clipeval.results.schema import WITH_VALUE

COMPOUND_METRICS = {name: metric.mean_of for name, metric in vocabulary.METRICS.items() if metric.mean_of}
"""Metrics that are the mean of several rows of the table."""

SEVERAL_TASKS = "zeroshot"
"""The task of averages over data sets of several tasks."""
_GROUP = ("model", "shots", "seed", "protocol", "limit", "precision")
_SHARED = (
    *(*_GROUP, "task", "prompts", "checkpoint_identity", *ModelInfo.__dataclass_fields__),
    *("device", "clipeval_version", "git_commit", "packages"),
)
_REFERENCE = "mean of {} data sets"
_MOST_NAMED = 5
_MOST_MISSING = 50
"""Names that a row lists: of a suite over languages hundreds may be missing."""


@dataclass(frozen=True)
class SuiteRequest:
    """A suite that somebody asked for. ``members`` pairs each data set with the metric that counts for it."""

    name: str
    metric: str
    members: tuple[tuple[str, str], ...]
    tasks: tuple[str, ...]
    """The tasks whose rows are averaged; of suites that mix them several, whose rows are then of ``SEVERAL_TASKS``."""

    def to_json(self) -> dict[str, Any]:
        """The request as JSON values, for the ledger."""
        return {**asdict(self), "members": [list(pair) for pair in self.members], "tasks": list(self.tasks)}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> SuiteRequest:
        """The inverse of ``to_json``."""
        members = tuple((dataset, metric) for dataset, metric in value["members"])
        return cls(value["name"], value["metric"], members, tuple(value["tasks"]))


def requests(
    config: Config, names: Sequence[str], tasks: Sequence[str], trained: Collection[str] = ()
) -> Iterator[SuiteRequest]:
    """The averages that the suites ``names`` of a configuration ask for, of rows of ``tasks``, of which ``trained`` are
    trained on the data. Where no single task gives the metrics of all members, the zero-shot tasks together do."""
    for name in names:
        suite, names_of_sets = config.suites[name], config.members(name)
        entries = {member: config.dataset(member) for member in names_of_sets}
        main = tuple((member, (entry.main_metric if entry else None) or "acc1") for member, entry in entries.items())
        lists = [(metric, tuple((member, metric) for member in names_of_sets)) for metric in suite.metric]
        for metric, members in lists or [("main_metric", main)]:
            wanted = {of_member for _, of_member in members}
            alone = [
                task for task in (*vocabulary.TASKS, *tasks) if all(_gives(task, of_member) for of_member in wanted)
            ]
            if not alone:
                yield SuiteRequest(name, metric, members, tuple(task for task in tasks if task not in trained))
            shown = members[0][1] if len(wanted) == 1 else metric
            yield from (SuiteRequest(name, shown, members, (task,)) for task in tasks if task in alone)


def _gives(task: str, metric: str) -> bool:
    """Whether a metric may come of a task. One that no task here lists is of another package: it is a metric of
    zero-shot classification, or comes of a task of that package."""
    if task in vocabulary.TASKS and any(of_ours.gives(metric) for of_ours in vocabulary.TASKS.values()):
        return vocabulary.task(task).gives(metric)
    return task == "zeroshot_classification" or task not in vocabulary.TASKS


def main_metrics(task: str, dataset: str, there: Sequence[str], config: Config) -> list[str]:
    """The metrics out of ``there`` that stand for a task on a data set: one, or both directions of retrieval. It is the
    data set's own main metric or what that is the mean of, else the task's, which go together."""
    entry = config.dataset(dataset)
    own = entry.main_metric if entry else None
    of_task = vocabulary.task(task).main
    choices = [of_task] if own is None or own in of_task else [(own,), vocabulary.metric(own).mean_of, of_task]
    found = ([metric for metric in metrics if metric in there] for metrics in choices)
    return next(filter(None, found), sorted(there, key=vocabulary.metric_place)[:1])


def is_suite(row: Mapping[str, Any]) -> bool:
    """Whether a row of a table is an average over data sets."""
    return str(row.get("reference") or "").startswith(_REFERENCE.partition("{")[0])


def suite_rows(suite: SuiteRequest, rows: Sequence[Row]) -> list[Row]:
    """The averages of one suite, one for every checkpoint (and shots, seed...) that was measured on any member.

    Members are averaged only where all were measured with the same weights, configuration and version of the task. The
    95 % interval treats the data sets as given and their errors as independent: the half width of the mean is the root
    of the summed squares of the members' half widths, divided by their number.
    """
    names = {dataset for dataset, _ in suite.members}
    groups: dict[tuple[Any, ...], dict[tuple[str, str], Row]] = {}
    for row in rows:
        if row["dataset"] in names and row["task"] in suite.tasks and row["status"] != "skipped":
            key = tuple(row.get(name) for name in _GROUP)
            groups.setdefault(key, {})[row["dataset"], row.get("metric") or ""] = row
    return [_average(suite, group) for group in groups.values()]


def _average(suite: SuiteRequest, group: dict[tuple[str, str], Row]) -> Row:
    members = [_member_values(group, dataset, metric) for dataset, metric in suite.members]
    missing = [dataset for (dataset, _), values in zip(suite.members, members, strict=True) if not values]
    counted = [row for values in members for row in values] or list(group.values())
    row = {name: counted[0].get(name) for name in _SHARED} | {
        "dataset": suite.name,
        "metric": suite.metric,
        "higher_is_better": True,
        "reference": _REFERENCE.format(len(suite.members)),
        "n": len(members) - len(missing),
    }
    if len(suite.tasks) != 1:
        row["task"] = SEVERAL_TASKS
    failed = row | {"value": math.nan, "status": "error"}
    if mixed := _mixture(counted):
        nothing = dict.fromkeys(("checkpoint_identity", *ModelInfo.__dataclass_fields__))
        return failed | nothing | {"model": row["model"], "error": f"{mixed}. Measure all of them again."}
    if missing:
        return failed | {"error": f"{len(missing)} of {len(members)} missing: {few(missing, _MOST_MISSING)}"}
    mean = math.fsum(math.fsum(r["value"] for r in values) / len(values) for values in members) / len(members)
    variance = math.fsum(math.fsum((_half_width(r) / len(values)) ** 2 for r in values) for values in members)
    half = math.sqrt(variance) / len(members)
    limited = any(r["status"] == "limited" for values in members for r in values)
    return row | {
        "value": mean,
        "ci_low": half if math.isnan(half) else max(0.0, mean - half),
        "ci_high": half if math.isnan(half) else min(1.0, mean + half),
        "status": "limited" if limited else "ok",
    }


def _half_width(row: Row) -> float:
    low, high = row.get("ci_low"), row.get("ci_high")
    return math.nan if low is None or high is None else (high - low) / 2


def _mixture(rows: Sequence[Row]) -> str:
    """Why the rows are no measurement of one checkpoint by one version of each task; empty where they are. Rows of
    earlier versions, which do not say their configuration, are told apart by their weights."""
    weights = _by(rows, lambda row: row.get("checkpoint_sha256"))
    if len(weights) > 1:
        return "measured with different weights: " + _listed(weights)
    identities = _by([row for row in rows if row.get("checkpoint_identity")], lambda row: row["checkpoint_identity"])
    if len(identities) > 1:
        return "measured with different configurations of the checkpoint: " + _listed(identities)
    for task in {row["task"] for row in rows}:
        versions = _by([row for row in rows if row["task"] == task], lambda row: str(row.get("task_version")))
        if len(versions) > 1:
            return f"measured with different versions of {task}: " + _listed(versions)
    return ""


def _by(rows: Sequence[Row], kind: Any) -> dict[Any, list[str]]:
    found: dict[Any, list[str]] = {}
    for row in rows:
        names = found.setdefault(kind(row), [])
        if row["dataset"] not in names:
            names.append(row["dataset"])
    return found


def _listed(kinds: dict[Any, list[str]]) -> str:
    """``a, b with 86cecb8c; c with e449a159``."""
    parts = []
    for kind, names in kinds.items():
        more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
        parts.append(f"{', '.join(names[:_MOST_NAMED])}{more} with {str(kind or 'unknown ones')[:8]}")
    return "; ".join(parts)


def _member_values(group: dict[tuple[str, str], Row], dataset: str, metric: str) -> list[Row]:
    found = [group.get((dataset, name)) for name in COMPOUND_METRICS.get(metric, (metric,))]
    good = [row for row in found if row is not None and row["status"] in WITH_VALUE]
    return good if len(good) == len(found) else []

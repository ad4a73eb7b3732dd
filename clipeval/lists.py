"""What can be named on the command line: checkpoints, data sets, suites, tasks and studies; and keys."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from clipeval.console import show
from clipeval.drawing import Column
from clipeval.errors import few
from clipeval.tables import Sheet, human, number


def _list_models(config: Any) -> list[dict[str, Any]]:
    from clipeval import models

    return models.zoo_table()


def _list_datasets(config: Any) -> list[dict[str, Any]]:
    from clipeval import datasets

    return datasets.list_datasets(config)


def _list_suites(config: Any) -> list[dict[str, Any]]:
    from clipeval import datasets

    return datasets.list_suites(config)


def _list_tasks(config: Any) -> list[dict[str, Any]]:
    from clipeval.tasks import TASKS, brought

    return [
        {
            **{"name": t.name, "short": t.short, "title": t.title, "version": t.version},
            **{"main_metric": t.main_metric, "metrics": list(t.metrics)},
            "package": t.extension.package if t.extension else "",
        }
        for t in (*TASKS.values(), *brought())
    ]


def _list_studies(config: Any) -> list[dict[str, Any]]:
    from clipeval.results import studies

    return studies.listed()


def _list_keys(config: Any) -> list[dict[str, Any]]:
    from clipeval import keys

    return list[dict[str, Any]](keys.rows(type(config)))


LISTS: dict[str, Callable[[Any], list[dict[str, Any]]]] = {
    "models": _list_models,
    "datasets": _list_datasets,
    "suites": _list_suites,
    "tasks": _list_tasks,
    "studies": _list_studies,
    "keys": _list_keys,
}
"""What ``clipeval list`` knows: word -> its rows under a configuration."""


_SEARCHED = (
    *("name", "title", "short", "model", "arch", "pretrained", "source", "source_family", "family", "spec", "tasks"),
    *("main_metric", "metric", "metrics", "suites", "cite"),
)


def holding(word: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of which a name, family, architecture, source or the like holds ``word``, in any case."""
    wanted = word.casefold()
    return [row for row in rows if any(wanted in str(row.get(key) or "").casefold() for key in _SEARCHED)]


def of_packages(what: str) -> list[str]:
    """Lines on what other packages bring of a listing."""
    from clipeval import extensions

    group = f"clipeval.{what}"
    found = extensions.named(group) if group in extensions.GROUPS else {}
    colon = "" if what == "tasks" else ":REFERENCE"
    return [f"{name}{colon} of {extension.package}" for name, extension in found.items()]


_COLUMNS = {
    "models": (
        Column("model", "name"),
        Column("source", leaves=1),
        Column("samples seen", "figure", 3),
        Column("samples seen from", leaves=8),
        Column("params", "figure", 2),
        Column("gmacs", "figure", 4),
        Column("gmacs total", "figure", 6),
        Column("image size", "figure", 7),
    ),
    "datasets": (
        Column("name", "name"),
        Column("n", "figure", 1),
        Column("tasks", leaves=2),
        Column("main metric", leaves=4),
        Column("split", leaves=5),
        Column("suites", leaves=3),
        Column("spec", leaves=6),
    ),
    "suites": (
        Column("name", "name"),
        Column("metric", leaves=1),
        Column("title", "prose"),
        Column("members", "prose"),
    ),
    "tasks": (
        Column("name", "name"),
        Column("short", leaves=1),
        Column("title", leaves=2),
        Column("version", "figure", 4),
        Column("main metric", leaves=3),
        Column("metrics", "prose"),
    ),
    "studies": (
        Column("name", "name"),
        Column("models", "figure", 1),
        Column("rows", "figure", 2),
        Column("title", "prose"),
        Column("cite", "prose"),
        Column("licence", leaves=3),
        Column("ask", "prose"),
    ),
}
"""The most useful of a listing; ``--json`` has all."""
_MOST_LISTED = 40


def print_list(what: str, rows: Sequence[dict[str, Any]]) -> None:
    """A listing with its most useful columns."""
    sheet = Sheet("", *_COLUMNS[what])
    for row in rows:
        sheet.add(*(_cell(row, column.head.replace(" ", "_")) for column in sheet.columns))
    reasons: dict[str, list[str]] = {}
    for row in rows:
        if row.get("unavailable"):
            reasons.setdefault(row["unavailable"], []).append(row["name"])
    sheet.legend += [f"cannot be measured: {', '.join(names)}: {reason}" for reason, names in reasons.items()]
    if rows:
        sheet.print()
    show(f"{len(rows)} {what}")


def _cell(row: dict[str, Any], name: str) -> str:
    value = row.get(name)
    if name == "tasks":
        from clipeval.tasks import named

        return ", ".join(named(task).short or task for task in value or ())
    if isinstance(value, list | tuple):
        return few(value, _MOST_LISTED)
    return human(value) if isinstance(value, float) else number(value)

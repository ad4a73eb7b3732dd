"""What can be named on the command line: checkpoints, data sets, suites, tasks and studies; and keys."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


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

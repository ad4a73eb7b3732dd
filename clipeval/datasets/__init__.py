"""Downstream data sets: which one a word names, and what it holds. Importing this imports nothing heavy."""

from typing import Any

from clipeval.config import Config
from clipeval.datasets.opening import capabilities, open_dataset
from clipeval.datasets.selection import Selection, resolve

__all__ = ["Selection", "capabilities", "list_datasets", "list_suites", "open_dataset", "resolve"]


def list_datasets(config: Config) -> list[dict[str, Any]]:
    """One row per data set of the configuration, with the suites it is in."""
    members = {name: {*suite.members} for name, suite in config.suites.items()}
    return [
        {
            "name": name,
            "spec": entry.spec,
            "split": entry.split,
            "n": entry.n,
            "tasks": list(entry.tasks) if entry.tasks else None,
            "main_metric": entry.main_metric,
            "suites": [suite for suite, names in members.items() if not names.isdisjoint({name, f"{name}@*"})],
            "languages": list(entry.languages),
            "unavailable": entry.unavailable,
        }
        for name, entry in config.datasets.items()
    ]


def list_suites(config: Config) -> list[dict[str, Any]]:
    """One row per suite of the configuration, with its members."""
    return [
        {
            "name": name,
            "title": suite.title,
            "n": len(config.members(name)),
            "metric": ", ".join(suite.metric) or "main_metric",
            "members": list(config.members(name)),
        }
        for name, suite in config.suites.items()
    ]

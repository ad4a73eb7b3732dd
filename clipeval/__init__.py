"""clipeval: evaluate CLIP checkpoints into one tidy table and derive their scaling laws.

The public names are loaded when first used, so that importing clipeval imports nothing heavy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from clipeval.version import __version__

if TYPE_CHECKING:
    from clipeval.checks.gate import check
    from clipeval.errors import (
        ClipevalError,
        DataError,
        MeasureError,
        MetricError,
        ModelError,
        RemoteError,
        StoreError,
        UsageError,
    )
    from clipeval.evaluation.run import run
    from clipeval.reporting.page import report
    from clipeval.reporting.push import push
    from clipeval.results.exporters import to_tensorboard, to_trackio, to_wandb
    from clipeval.results.leaderboard import leaderboard
    from clipeval.results.outcomes import read_samples
    from clipeval.results.reading import read_results
    from clipeval.scaling.fit import fit
    from clipeval.scaling.planner import design

_HOMES = {
    "check": "clipeval.checks.gate",
    "design": "clipeval.scaling.planner",
    "fit": "clipeval.scaling.fit",
    "leaderboard": "clipeval.results.leaderboard",
    "read_results": "clipeval.results.reading",
    "read_samples": "clipeval.results.outcomes",
    "push": "clipeval.reporting.push",
    "report": "clipeval.reporting.page",
    "run": "clipeval.evaluation.run",
    "to_tensorboard": "clipeval.results.exporters",
    "to_trackio": "clipeval.results.exporters",
    "to_wandb": "clipeval.results.exporters",
    "ClipevalError": "clipeval.errors",
    "DataError": "clipeval.errors",
    "MeasureError": "clipeval.errors",
    "MetricError": "clipeval.errors",
    "ModelError": "clipeval.errors",
    "RemoteError": "clipeval.errors",
    "StoreError": "clipeval.errors",
    "UsageError": "clipeval.errors",
}

__all__ = [
    "ClipevalError",
    "DataError",
    "MeasureError",
    "MetricError",
    "ModelError",
    "RemoteError",
    "StoreError",
    "UsageError",
    "__version__",
    "check",
    "design",
    "fit",
    "leaderboard",
    "push",
    "read_results",
    "read_samples",
    "report",
    "run",
    "to_tensorboard",
    "to_trackio",
    "to_wandb",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'clipeval' has no attribute '{name}'")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)

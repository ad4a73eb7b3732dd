"""clipeval: evaluate CLIP checkpoints into one tidy table and derive their scaling laws.

The public names are loaded when first used, so that importing clipeval imports nothing heavy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from clipeval.version import __version__

if TYPE_CHECKING:
    from clipeval.checks.gate import check
    from clipeval.evaluation.run import run
    from clipeval.reporting.page import report
    from clipeval.results.reading import read_results
    from clipeval.scaling.fit import fit

__all__ = ["__version__", "check", "fit", "read_results", "report", "run"]

_HOMES = {
    "check": "clipeval.checks.gate",
    "fit": "clipeval.scaling.fit",
    "report": "clipeval.reporting.page",
    "run": "clipeval.evaluation.run",
    "read_results": "clipeval.results.reading",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'clipeval' has no attribute '{name}'")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

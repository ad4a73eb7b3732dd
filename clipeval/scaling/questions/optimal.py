"""The architecture and the samples seen that a compute budget buys the lowest error with, read off a joint law."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from clipeval.errors import UsageError
from clipeval.results.columns import archs, numbers
from clipeval.scaling.fitted import Fit

if TYPE_CHECKING:
    import pandas as pd

FLAT = 0.01
"""A choice is as good as the best one when its error is at most 1 % higher, relative to it."""
_GRID = 400
_SIZE, _SEEN, _UNIQUE = "gmacs", "samples_seen", "unique_samples"


def require_joint(budget: float, x: str) -> None:
    """Raises UsageError where no optimum can be read off a law of ``x``, or ``budget`` is not positive."""
    columns = tuple(name.strip() for name in x.split(","))
    if columns not in ((_SIZE, _SEEN), (_SIZE, _SEEN, _UNIQUE)):
        raise UsageError(f"--budget needs a joint law of --x {_SIZE},{_SEEN}[,{_UNIQUE}], not of {x}.")
    if not budget > 0:
        raise UsageError(f"--budget {budget}: must be a positive number of GMACs.")


def optimal(fits: Sequence[Fit], budget: float, x: str) -> pd.DataFrame:
    """How to spend ``budget`` (GMACs) on each source: one row per law for the optimum, one per architecture.

    The laws are joint ones of ``x`` = ``gmacs,samples_seen`` (or with ``unique_samples``, taken as the most that the
    source has). ``kind`` is ``optimum``, of any GMACs per sample within the range of the checkpoints, or
    ``architecture``, one of theirs. ``error_low`` and ``error_high`` are the 95 % interval; ``gmacs_low`` and
    ``gmacs_high`` that of the optimum; ``flat_low`` and ``flat_high`` the range of GMACs per sample within which the
    error stays within 1 % of the lowest; ``excess`` is the error relative to the optimum, minus 1. Raises UsageError
    for another x or a budget that is not positive.
    """
    import pandas as pd

    require_joint(budget, x)
    return pd.DataFrame([row for fit in fits if fit.estimate is not None for row in _rows(fit, budget)])


def joint_law(table: pd.DataFrame) -> tuple[str, str]:
    """The law and its scales to read an optimum off: with repeats where the table says how many samples are unique."""
    if "unique_samples" in table and table["unique_samples"].notna().any():
        return "joint_repeats", f"{_SIZE},{_SEEN},{_UNIQUE}"
    return "joint_nd", f"{_SIZE},{_SEEN}"


def _rows(fit: Fit, budget: float) -> list[dict[str, object]]:
    sizes = fit.points.x[:, 0]
    grid = np.geomspace(sizes.min(), sizes.max(), _GRID)
    scales = _scales(fit, grid, budget)
    error = fit.error(scales)
    best = int(error.argmin())
    flat = grid[error <= error[best] * (1 + FLAT)]
    task, dataset, metric, shots = fit.points.cell
    shared = {"task": task, "dataset": dataset, "metric": metric, "shots": shots, "source": fit.points.source}
    at = [best]
    rows: list[dict[str, Any]] = [
        shared | {"kind": "optimum", "arch": ""} | row for row in _described(fit, grid[at], budget, error[best])
    ]
    rows[0] |= {"flat_low": float(flat[0]), "flat_high": float(flat[-1])}
    if len(fit.known.draws):
        chosen = grid[fit.law.error(scales, fit.known.draws).argmin(axis=1)]
        low, high = np.quantile(chosen, (0.025, 0.975))
        rows[0] |= {"gmacs_low": float(low), "gmacs_high": float(high)}
    choices = _architectures(fit)
    described = _described(fit, np.array(list(choices.values())), budget, error[best])
    return rows + [
        shared | {"kind": "architecture", "arch": arch} | row for arch, row in zip(choices, described, strict=True)
    ]


def _described(fit: Fit, gmacs: np.ndarray, budget: float, lowest: float) -> list[dict[str, float]]:
    scales = _scales(fit, gmacs, budget)
    error, (low, high), beyond = fit.error(scales), fit.band(scales), fit.decades_beyond(scales)
    return [
        {
            "budget": budget,
            "gmacs": float(gmacs[i]),
            "samples_seen": float(budget / gmacs[i]),
            "error": float(error[i]),
            "error_low": float(low[i]),
            "error_high": float(high[i]),
            "excess": float(error[i] / lowest - 1),
            "decades_beyond": float(beyond[i]),
        }
        for i in range(len(gmacs))
    ]


def _scales(fit: Fit, gmacs: np.ndarray, budget: float) -> np.ndarray:
    """The inputs of the law ``[n, inputs]`` when the whole budget goes into models of these GMACs per sample."""
    parts = [gmacs, budget / gmacs]
    if fit.law.inputs > len(parts):
        parts.append(np.full(len(gmacs), fit.points.x[:, 2].max()))
    return np.stack(parts, axis=1)


def _architectures(fit: Fit) -> dict[str, float]:
    """GMACs per sample of the architectures that were fitted, whatever their activation, in ascending order."""
    found = dict(zip(archs(fit.points.table), numbers(fit.points.table, _SIZE), strict=True))
    return {arch: gmacs for arch, gmacs in sorted(found.items(), key=lambda item: item[1]) if arch}

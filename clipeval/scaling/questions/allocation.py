"""How the best model size grows with compute: the three approaches of Hoffmann et al. 2022 (arXiv 2203.15556).

Of N_opt ~ C**a each approach estimates ``a``: from the best model of every compute bin (1), from the minimum of a
parabola in ln N for every compute budget (2), and from a joint law of size and samples, a = alpha_d / (alpha_n +
alpha_d) (3). They assume different things, and on public CLIP tables they differ by more than their intervals: the
second's parabola is not the shape of a joint law, which biases it where budgets are tried far from their optimum, and
the third believes that law. So all three are given, and whether they agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import stdtrit

from clipeval.errors import MeasureError
from clipeval.results.columns import numbers
from clipeval.scaling.fitted import Fit
from clipeval.scaling.laws import LAWS
from clipeval.scaling.problem import Problem
from clipeval.scaling.uncertainty.clusters import combination
from clipeval.scaling.uncertainty.resample import data_again

if TYPE_CHECKING:
    import pandas as pd

BIN = float(np.log(2.0))
"""Models whose compute differs by less than a factor of 2 share a bin where no budgets are given."""
SAME = 1e-6
"""Relative difference within which budgets are the same."""
FEWEST_SIZES = 4
"""Sizes that a budget needs for a parabola to have a scatter."""
DRAWS = 500
_NAN = float("nan")


@dataclass(frozen=True)
class Exponent:
    """What one approach says of ``a``, with its 95 % interval. ``n`` counts the budgets or models it rests on.

    NaN with a ``reason`` where an approach cannot say anything, or no interval can be given.
    """

    approach: str
    a: float
    low: float
    high: float
    n: int
    reason: str = ""


@dataclass(frozen=True)
class Allocation:
    """The exponents of the three approaches and whether any value of ``a`` lies in all their intervals."""

    exponents: tuple[Exponent, ...]

    @property
    def settled(self) -> bool:
        """Whether at least two approaches have an interval, and all intervals share a value."""
        known = [one for one in self.exponents if np.isfinite(one.high - one.low)]
        return len(known) >= 2 and max(one.low for one in known) <= min(one.high for one in known)

    @property
    def sentence(self) -> str:
        """The conclusion in words."""
        if self.settled:
            return "the approaches agree within their intervals"
        known = [one for one in self.exponents if np.isfinite(one.high - one.low)]
        if len(known) < 2:
            return "not settled: fewer than two approaches have an interval"
        return "not settled: the approaches differ by more than their intervals"


def allocation(
    size: np.ndarray,
    samples: np.ndarray,
    error: np.ndarray,
    *,
    budget: np.ndarray | None = None,
    groups: Sequence[object] | None = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> Allocation:
    """The exponent of the best ``size`` by compute, from models of ``size``, ``samples`` and ``error``, each ``[n]``.

    ``budget`` ``[n]`` is the compute that each was given in an isoFLOP design, where models of one budget belong
    together. Without it compute is size times samples, and models within a factor of 2 share a bin. ``groups`` ``[n]``
    are labels of models that err together, such as architectures, for the interval of the third approach. Raises
    MeasureError where a value is not positive.
    """
    compute = size * samples if budget is None else budget
    for what, values in (("size", size), ("samples", samples), ("error", error), ("compute", compute)):
        if not (np.isfinite(values) & (np.asarray(values) > 0)).all():
            raise MeasureError(f"{what}: an allocation needs positive, finite values. Leave the model out.")
    log_size, log_error, log_compute = np.log(size), np.log(error), np.log(compute)
    width = BIN if budget is None else SAME
    number = np.floor((log_compute - log_compute.min()) / width + 0.5 * (budget is not None)).astype(int)
    members = [np.flatnonzero(number == value) for value in np.unique(number)]
    return Allocation((
        _best_models(log_size, log_compute, log_error, members),
        _parabolas(log_size, log_compute, log_error, members),
        _joint_law(Problem(LAWS["joint_nd"], np.stack([size, samples], axis=1), error, draws=draws, seed=seed), groups),
    ))  # fmt: skip


def growth(fits: Sequence[Fit]) -> pd.DataFrame:
    """One row per joint law of GMACs per sample and samples seen, and approach: ``a``, its interval, what it rests on,
    and the conclusion from all three. Compute is the column ``budget`` where the table has it."""
    import pandas as pd

    rows = []
    for fit in fits:
        if fit.estimate is None:
            continue
        points = fit.points
        budget = numbers(points.table, "budget") if "budget" in points.table else None
        found = allocation(points.x[:, 0], points.x[:, 1], points.error, budget=budget)
        task, dataset, metric, shots = points.cell
        named = {"task": task, "dataset": dataset, "metric": metric, "shots": shots, "source": points.source}
        rows += [named | asdict(one) | {"conclusion": found.sentence} for one in found.exponents]
    return pd.DataFrame(rows)


def _best_models(
    log_size: np.ndarray, log_compute: np.ndarray, log_error: np.ndarray, members: list[np.ndarray]
) -> Exponent:
    """Approach 1: a line through the sizes of the best model of each bin, at their own compute.

    Only where smaller and larger ones were tried too: a best model at the edge says that the best is not among them.
    """
    best = []
    for rows in members:
        row = rows[np.argmin(log_error[rows])]
        if log_size[rows].min() < log_size[row] < log_size[rows].max():
            best.append(row)
    return _slope("1, best model of each bin", log_compute[best], log_size[best])


def _parabolas(
    log_size: np.ndarray, log_compute: np.ndarray, log_error: np.ndarray, members: list[np.ndarray]
) -> Exponent:
    """Approach 2: a line through the minima of a parabola in ln N per budget.

    The compute of the models of a bin differs; what ln E owes to that is a slope common to all bins. A parabola counts
    if it has its minimum within the sizes that were tried.
    """
    usable = [rows for rows in members if len(np.unique(log_size[rows].round(6))) >= FEWEST_SIZES]
    if not usable:
        return Exponent("2, parabola per budget", _NAN, _NAN, _NAN, 0, f"no budget has {FEWEST_SIZES} sizes")
    design = np.zeros((sum(map(len, usable)), 3 * len(usable) + 1))
    target, first = [], 0
    for j, rows in enumerate(usable):
        here = slice(first, first + len(rows))
        centred = log_size[rows] - log_size[rows].mean()
        design[here, 3 * j : 3 * j + 3] = np.stack([np.ones(len(rows)), centred, centred**2], axis=1)
        design[here, -1] = log_compute[rows] - log_compute[rows].mean()
        target.append(log_error[rows])
        first += len(rows)
    found = np.linalg.lstsq(design, np.concatenate(target), rcond=1e-10)[0]
    x, y = [], []
    for j, rows in enumerate(usable):
        _, slope, bend = found[3 * j : 3 * j + 3]
        if not bend > 0:
            continue
        lowest = log_size[rows].mean() - slope / (2 * bend)
        if log_size[rows].min() <= lowest <= log_size[rows].max():
            x.append(log_compute[rows].mean())
            y.append(lowest)
    return _slope("2, parabola per budget", np.array(x), np.array(y))


def _joint_law(problem: Problem, groups: Sequence[object] | None) -> Exponent:
    """Approach 3: by a bootstrap of residuals, or of ``groups`` the delta method on the cluster-robust variance."""
    name, names = "3, joint law", problem.law.names
    try:
        found = problem.estimate
    except MeasureError as refusal:
        return Exponent(name, _NAN, _NAN, _NAN, 0, str(refusal))
    alpha_n, alpha_d = found["alpha_n"], found["alpha_d"]
    if alpha_n * alpha_d == 0:
        return Exponent(name, _NAN, _NAN, _NAN, found.n, "an exponent of the joint law lies at 0: its term is not seen")
    total = alpha_n + alpha_d
    a = alpha_d / total
    if groups is not None:
        slope = {"alpha_n": -alpha_d / total**2, "alpha_d": alpha_n / total**2}
        try:
            se, df = combination(problem, groups, np.array([slope.get(name, 0.0) for name in names]))
        except MeasureError as refusal:
            return Exponent(name, a, _NAN, _NAN, found.n, str(refusal))
        half = float(stdtrit(df, 0.975)) * se
        return Exponent(name, a, a - half, a + half, found.n)
    if problem.freedom < 1:
        return Exponent(name, a, _NAN, _NAN, found.n, f"{found.n} points leave no scatter about this law")
    draws = data_again(problem, np.random.default_rng(problem.seed))
    draws = draws[np.isfinite(draws).all(1)]
    n, d = draws[:, names.index("alpha_n")], draws[:, names.index("alpha_d")]
    ratio = np.divide(d, n + d, out=np.full(len(n), 0.5), where=n + d < 0)
    low, high = np.quantile(ratio, (0.025, 0.975))
    return Exponent(name, a, float(low), float(high), found.n)


def _slope(approach: str, x: np.ndarray, y: np.ndarray) -> Exponent:
    """A straight line with Student's interval of its slope."""
    n = len(x)
    if n < 2:
        return Exponent(approach, _NAN, _NAN, _NAN, n, f"{n} budget(s) with a minimum within the sizes tried")
    centred = x - x.mean()
    slope = float(centred @ y / (centred @ centred))
    if n < 3:
        return Exponent(approach, slope, _NAN, _NAN, n, "two budgets leave no scatter about a line")
    rest = y - y.mean() - slope * centred
    half = float(stdtrit(n - 2, 0.975) * np.sqrt(rest @ rest / (n - 2) / (centred @ centred)))
    return Exponent(approach, slope, slope - half, slope + half, n)

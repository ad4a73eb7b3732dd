"""Which runs to train next, so that a budget teaches most of one large model: a locally optimal design.

The variance of the forecast at scale x* of a law fitted by least squares is c' F**-1 c, with c its gradient there and F
the information, the sum of J J' / sigma**2 over runs (c-optimality: Elfving 1952, Ann. Math. Stat. 23:255; Pukelsheim
1993, Optimal Design of Experiments). Runs are added one by one, each time the one that lowers ln sd most for the root
of its cost. What the runs so far say nothing of, such as a floor, is bounded by a weak prior. All is of the law as
fitted: it plans well if that is about right, and cannot see that it is not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from clipeval.errors import MeasureError, UsageError
from clipeval.scaling.problem import Problem

PRIOR_SD = 3.0
"""Of logarithms of terms at the centre of the runs: a factor of 20 either way."""
PRIOR_SD_EXPONENT = 0.5
PRIOR_SD_FLOOR = 0.5
"""Of a floor, as a part of the lowest error seen."""
FEWEST_LEVELS = 3
"""Values of a scale below which no run shows that the law bends."""


@dataclass(frozen=True)
class Plan:
    """Runs to add, ``runs`` ``[m, inputs]`` with ``cost`` ``[m]``, and the standard deviation of ln E at the target.

    ``sd_before`` and ``sd_after`` are of the law at the target, without and with them, as ``sigma`` says;
    ``sd_largest`` that with the money in one run, the best of those of more than half of what it can buy. ``counts``
    are runs by candidate.
    """

    runs: np.ndarray
    cost: np.ndarray
    sd_before: float
    sd_after: float
    sd_largest: float
    counts: dict[int, int]
    notes: tuple[str, ...]


def next_runs(
    problem: Problem,
    target: np.ndarray,
    candidates: np.ndarray,
    cost: np.ndarray,
    budget: float,
    sigma: float,
    *,
    repeats: int = 3,
) -> Plan:
    """The runs among ``candidates`` ``[m, inputs]`` of ``cost`` ``[m]`` that a budget buys for a forecast.

    The forecast is of ln E at scales ``target`` ``[inputs]`` by the law of ``problem``, whose points are the runs so
    far; ``sigma`` is the standard deviation of ln E of a run about the law. A candidate may be chosen up to ``repeats``
    times, with other seeds: what a law is off by at a scale is the same in all of them. Raises UsageError where the
    budget buys none of the candidates, and MeasureError for a sigma that is not positive.
    """
    cost = np.asarray(cost, dtype=float)
    if not sigma > 0:
        raise MeasureError(f"sigma {sigma}: a plan needs the scatter of runs about the law, which is positive.")
    if not (cost <= budget).any():
        raise UsageError(f"the budget {budget:.4g} buys none of the runs: the cheapest costs {cost.min():.4g}.")
    model = _Model(problem)
    of_runs, aim = model.gradient(candidates) / sigma, model.gradient(np.atleast_2d(target))[0]
    before = covariance = model.covariance(problem.x, sigma)
    chosen: list[int] = []
    left, open_ = budget, np.full(len(cost), repeats)
    while (usable := (cost <= left) & (open_ > 0)).any():
        gain = np.where(usable, _fall(covariance, of_runs, aim) / np.sqrt(cost), -np.inf)
        best = int(gain.argmax())
        chosen.append(best)
        left, open_[best] = left - cost[best], open_[best] - 1
        covariance = _with(covariance, of_runs[best])
    costly = (cost <= budget) & (cost >= 0.5 * cost[cost <= budget].max())
    largest = int(np.where(costly, _fall(before, of_runs, aim), -np.inf).argmax())
    return Plan(
        runs=candidates[chosen],
        cost=cost[chosen],
        sd_before=_sd(before, aim),
        sd_after=_sd(covariance, aim),
        sd_largest=_sd(_with(before, of_runs[largest]), aim),
        counts=dict(Counter(chosen)),
        notes=_notes(np.concatenate([problem.x, candidates[chosen]])),
    )


def leave_out(problem: Problem, sigma: float, far: int = 3) -> tuple[float, float]:
    """A check of such plans on the runs there are: of the ``far`` most expensive, forecast from the others.

    The standard deviation that the design formula promises on average, and the root mean square of what a refit of the
    others was off by. Much more of the second means that the law or ``sigma`` is not to be planned with. ``far`` runs
    are the ones with the largest product of scales. Raises MeasureError where the others do not determine the law.
    """
    order = np.argsort(problem.log_x.sum(1))
    kept, held = order[:-far], order[-far:]
    others = problem.where(kept)
    off = np.log(problem.law.error(problem.x[held], others.estimate.params)) - problem.log_error[held]
    model = _Model(problem)
    covariance, aims = model.covariance(others.x, sigma), model.gradient(problem.x[held])
    promised = np.sqrt(np.mean([aim @ covariance @ aim for aim in aims]) + sigma**2)
    return float(promised), float(np.sqrt(np.mean(off**2)))


def exponent_sd(x: Sequence[float] | np.ndarray, sigma: float) -> float:
    """The standard deviation of the exponent of a power law from runs of scale ``x``.

    It is sigma / sqrt(sum (ln x - mean)**2): runs at two ends have the smallest one for their cost. These cannot show
    that a law bends; keep three scales.
    """
    log_x = np.log(np.asarray(x, dtype=float))
    return float(sigma / np.sqrt(((log_x - log_x.mean()) ** 2).sum()))


def split(se_a: float, cost_a: float, se_b: float, cost_b: float) -> float:
    """The share of new money for source a that makes a difference of exponents most certain.

    ``se`` are the standard errors that runs of total ``cost`` gave. Variances fall as money is added, v / money, so
    that money goes as the roots of v: as se * sqrt(cost).
    """
    a, b = se_a * np.sqrt(cost_a), se_b * np.sqrt(cost_b)
    return float(a / (a + b))


class _Model:
    """The gradient of ln E by well-conditioned coordinates at fitted parameters, and the prior information of them."""

    def __init__(self, problem: Problem) -> None:
        self.law, self.scale = problem.law, problem.law.log_scale(problem.log_x)
        with np.errstate(divide="ignore"):
            self.theta = self.law.coordinates(problem.estimate.params, self.scale)
        sd = np.full(len(self.law.names), PRIOR_SD)
        for j, name in enumerate(self.law.names):
            if name.startswith("alpha"):
                sd[j] = PRIOR_SD_EXPONENT
            elif name == "e_inf":
                sd[j] = PRIOR_SD_FLOOR * problem.error.min()
        self.prior = np.diag(sd**-2.0)

    def gradient(self, x: np.ndarray) -> np.ndarray:
        """``[n, k]`` at scales ``[n, inputs]``."""
        return self.law.log_error(np.log(x)[None] - self.scale, self.theta[None])[1][0]

    def covariance(self, x: np.ndarray, sigma: float) -> np.ndarray:
        """Of the coordinates ``[k, k]`` as runs of scales ``[n, inputs]`` know them."""
        seen = self.gradient(x) / sigma
        return np.linalg.inv(seen.T @ seen + self.prior)


def _fall(covariance: np.ndarray, runs: np.ndarray, aim: np.ndarray) -> np.ndarray:
    """How far ln sd at ``aim`` falls with each of ``runs`` added ``[m]``."""
    moved = runs @ covariance
    gained = (moved @ aim) ** 2 / (1 + (moved * runs).sum(1))
    return -0.5 * np.log1p(-np.minimum(gained / (aim @ covariance @ aim), 1 - 1e-12))


def _with(covariance: np.ndarray, run: np.ndarray) -> np.ndarray:
    """The covariance with one run more (Sherman and Morrison 1950)."""
    moved = covariance @ run
    return covariance - np.outer(moved, moved) / (1 + run @ moved)


def _sd(covariance: np.ndarray, aim: np.ndarray) -> float:
    return float(np.sqrt(aim @ covariance @ aim))


def _notes(runs: np.ndarray) -> tuple[str, ...]:
    few = min(len(np.unique(np.log(column).round(6))) for column in runs.T)
    if few >= FEWEST_LEVELS:
        return ()
    return (f"only {few} levels of a scale: nothing would show that the law bends. Keep {FEWEST_LEVELS} or more",)

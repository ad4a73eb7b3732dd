"""Which runs to train next, so that a budget teaches most of one large model: a locally optimal design.

The variance of the forecast at scale x* of a law fitted by least squares is c' F**-1 c, with c its gradient there and F
the information, the sum of J J' / sigma**2 over runs (c-optimality: Elfving 1952, Ann. Math. Stat. 23:255; Pukelsheim
1993, Optimal Design of Experiments). Runs are added one by one, each time the one that lowers ln sd most for the root
of its cost. What the runs so far say nothing of, such as a floor, is bounded by a weak prior. All is of the law as
fitted: it plans well if that is about right, and cannot see that it is not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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


@dataclass(frozen=True, eq=False)
class Side:
    """A law that an answer is of, and what of it is asked for.

    The points of ``problem`` are the runs so far; ``sigma`` is the standard deviation of ln E of a run about the law.
    ``target`` are scales ``[inputs]`` at which ln E is asked for; None asks for the exponent of a power law.
    """

    problem: Problem
    sigma: float
    target: np.ndarray | None

    def __post_init__(self) -> None:
        """Raises MeasureError for a sigma that is not positive."""
        if not self.sigma > 0:
            raise MeasureError(
                f"sigma {self.sigma}: a plan needs the scatter of runs about the law, which is positive."
            )


@dataclass(frozen=True)
class Plan:
    """Runs to add: ``chosen`` are the candidates' numbers in turn, ``cost`` ``[m]`` is what each costs.

    ``sd_before`` and ``sd_after`` are of the answer without and with them, as sigma says; ``sd_largest`` that with the
    money in one run, the best of those of more than half of what it can buy.
    """

    chosen: list[int]
    cost: np.ndarray
    sd_before: float
    sd_after: float
    sd_largest: float
    notes: tuple[str, ...]


Price = Callable[[Sequence[int]], np.ndarray]
"""Of the runs that are chosen already, what each candidate costs beside them ``[m]``."""


def next_runs(
    sides: Sequence[Side], of: np.ndarray, candidates: np.ndarray, price: Price, budget: float, *, repeats: int = 3
) -> Plan:
    """The runs that a budget buys for an answer: the sum of what is asked of each of ``sides``, or their difference.

    ``candidates`` ``[m, inputs]`` (``[m]`` for laws of one scale) are scales of runs, each of the side ``of`` ``[m]``.
    One may be chosen up to ``repeats`` times, with other seeds: what a law is off by at a scale is the same in all of
    them. Raises UsageError where the budget buys none of the candidates.
    """
    models = [_Model(side.problem) for side in sides]
    rows = np.stack([models[s].gradient(x[None])[0] / sides[s].sigma for s, x in zip(of, candidates, strict=True)])
    aims = [model.aim(side.target) for model, side in zip(models, sides, strict=True)]
    before = [model.covariance(side.problem.x, side.sigma) for model, side in zip(models, sides, strict=True)]
    known, left, open_ = list(before), budget, np.full(len(of), repeats)
    cost = price([])
    if not (cost <= budget).any():
        raise UsageError(f"the budget {budget:.4g} buys none of the runs: the cheapest costs {cost.min():.4g}.")
    costly = (cost <= budget) & (cost >= 0.5 * cost[cost <= budget].max())
    largest = int(np.where(costly, _fall(before, aims, of, rows), -np.inf).argmax())
    chosen: list[int] = []
    paid: list[float] = []
    while (usable := (cost <= left) & (open_ > 0)).any():
        gain = np.where(usable, _fall(known, aims, of, rows) / np.sqrt(cost), -np.inf)
        best = int(gain.argmax())
        chosen.append(best)
        paid.append(float(cost[best]))
        left, open_[best] = left - cost[best], open_[best] - 1
        known[of[best]] = _with(known[of[best]], rows[best])
        cost = price(chosen)
    single = [_with(c, rows[largest]) if s == of[largest] else c for s, c in enumerate(before)]
    return Plan(
        chosen=chosen,
        cost=np.array(paid),
        sd_before=_sd(before, aims),
        sd_after=_sd(known, aims),
        sd_largest=_sd(single, aims),
        notes=_notes(sides, of[chosen], candidates[chosen]),
    )


def leave_out(problem: Problem, sigma: float, far: int = 3) -> tuple[float, float]:
    """A check of such plans on the runs there are: of the ``far`` most expensive, forecast from the others.

    The standard deviation that the design formula promises on average, and the root mean square of what a refit of the
    others was off by. Much more of the second means that the law or ``sigma`` is not to be planned with. ``far`` runs
    are the ones with the largest product of scales. Raises MeasureError where the others do not determine the law.
    """
    order = np.argsort(problem.log_x.reshape(len(problem.error), -1).sum(1))
    kept, held = order[:-far], order[-far:]
    others = problem.where(kept)
    off = np.log(problem.law.error(problem.x[held], others.estimate.params)) - problem.log_error[held]
    model = _Model(problem)
    covariance, aims = model.covariance(others.x, sigma), model.gradient(problem.x[held])
    promised = np.sqrt(np.mean([aim @ covariance @ aim for aim in aims]) + sigma**2)
    return float(promised), float(np.sqrt(np.mean(off**2)))


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

    def aim(self, target: np.ndarray | None) -> np.ndarray:
        """The gradient ``[k]`` of what is asked for: of ln E at a target, or of the exponent."""
        if target is None:
            return np.eye(len(self.law.names))[self.law.names.index("alpha")]
        return self.gradient(np.asarray(target)[None])[0]

    def covariance(self, x: np.ndarray, sigma: float) -> np.ndarray:
        """Of the coordinates ``[k, k]`` as runs of scales ``[n, inputs]`` know them."""
        seen = self.gradient(x) / sigma
        return np.linalg.inv(seen.T @ seen + self.prior)


def _fall(known: Sequence[np.ndarray], aims: Sequence[np.ndarray], of: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """How far ln sd of the answer falls with each candidate added ``[m]``; ``rows`` are their gradients over sigma."""
    total = sum(aim @ covariance @ aim for covariance, aim in zip(known, aims, strict=True))
    gained = np.empty(len(of))
    for s, (covariance, aim) in enumerate(zip(known, aims, strict=True)):
        moved = rows[of == s] @ covariance
        gained[of == s] = (moved @ aim) ** 2 / (1 + (moved * rows[of == s]).sum(1))
    return -0.5 * np.log1p(-np.minimum(gained / total, 1 - 1e-12))


def _with(covariance: np.ndarray, run: np.ndarray) -> np.ndarray:
    """The covariance with one run more (Sherman and Morrison 1950)."""
    moved = covariance @ run
    return covariance - np.outer(moved, moved) / (1 + run @ moved)


def _sd(known: Sequence[np.ndarray], aims: Sequence[np.ndarray]) -> float:
    return float(np.sqrt(sum(aim @ covariance @ aim for covariance, aim in zip(known, aims, strict=True))))


def _notes(sides: Sequence[Side], of: np.ndarray, added: np.ndarray) -> tuple[str, ...]:
    runs = [np.concatenate([side.problem.x, added[of == s]]) for s, side in enumerate(sides)]
    few = min(len(np.unique(np.log(column).round(6))) for x in runs for column in x.reshape(len(x), -1).T)
    if few >= FEWEST_LEVELS:
        return ()
    return (f"only {few} levels of a scale: nothing would show that the law bends. Keep {FEWEST_LEVELS} or more",)

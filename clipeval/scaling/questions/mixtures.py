"""Laws of the mixture of training data: loss by the shares of its sources, and the mixture with the lowest.

The law of Ye et al. 2024 (arXiv 2403.16952), one per task: L(r) = c + k exp(sum_j t_j r_j) for shares r_j that sum to
1. As they do, k is no parameter of its own: L(r) = c + exp(sum_j s_j r_j) with s_j = t_j + ln k. A sum of such laws is
convex in r, so that its lowest mixture is unique as a value and found from anywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from clipeval.errors import MeasureError

SPARE = 4
"""Mixtures beyond the number of sources that a fit needs."""
SHARES = 1e-6
"""How far the shares of a mixture may sum from 1."""
FLOORS = (0.0, 0.3, 0.6, 0.8, 0.9, 0.97)
"""Values of c to start from, as a part of the lowest loss."""
STEPS = 400


@dataclass(frozen=True)
class MixtureLaw:
    """L(r) = ``floor`` + exp(``slopes`` . r), with one slope per source; the higher, the less the source helps."""

    floor: float
    slopes: np.ndarray
    rss: float

    def loss(self, shares: np.ndarray) -> np.ndarray:
        """The loss ``[n]`` of mixtures ``[n, sources]``."""
        return self.floor + np.exp(shares @ self.slopes)


@dataclass(frozen=True)
class Optimum:
    """The mixture with the lowest (weighted) loss over tasks, and what leaving out one of the mixtures does to it.

    ``low`` and ``high`` ``[sources]`` are the smallest and the largest share among the optima without one mixture: they
    show what hangs on a single run, not a 95 % interval. ``inside`` tells whether the optimum is a mean of mixtures
    that were tried; outside of these the law is followed where nothing was measured.
    """

    shares: np.ndarray
    low: np.ndarray
    high: np.ndarray
    loss: float
    inside: bool


def fit_mixture(shares: np.ndarray, loss: np.ndarray) -> MixtureLaw:
    """Least squares of ln L for mixtures ``[n, sources]`` and their ``loss`` ``[n]`` (or error) on one task.

    Raises MeasureError for fewer mixtures than sources + 4, shares that do not sum to 1, and losses that are not
    positive.
    """
    shares, loss = _checked(shares, loss)
    return _search(shares, loss, [_start(shares, loss, part * loss.min()) for part in FLOORS])


def left_out(shares: np.ndarray, loss: np.ndarray, held: np.ndarray) -> np.ndarray:
    """Predicted over measured loss, minus 1, of the mixtures ``held`` (boolean ``[n]``), by the law of the others."""
    law = fit_mixture(shares[~held], loss[~held])
    return law.loss(shares[held]) / loss[held] - 1


def leave_mixture_out(shares: np.ndarray, loss: np.ndarray) -> np.ndarray:
    """Predicted over measured loss, minus 1, of each mixture by the law of all others: ``[n]``."""
    return np.concatenate([left_out(shares, loss, np.arange(len(loss)) == i) for i in range(len(loss))])


def best_mixture(shares: np.ndarray, losses: np.ndarray, weights: Sequence[float] | None = None) -> Optimum:
    """The shares that minimise the weighted mean over tasks, from mixtures ``[n, sources]`` and losses ``[tasks, n]``.

    ``weights`` ``[tasks]`` are equal by default. Refusals are those of ``fit_mixture``; leaving out one mixture has to
    leave enough of them too.
    """
    losses = np.atleast_2d(losses)
    weight = np.ones(len(losses)) if weights is None else np.asarray(weights, dtype=float)
    weight = weight / weight.sum()
    laws = [fit_mixture(shares, loss) for loss in losses]
    best = _lowest(laws, weight)
    without = []
    for i in range(len(shares)):
        kept = np.arange(len(shares)) != i
        again = [
            _search(*_checked(shares[kept], loss[kept]), [_theta(law)]) for law, loss in zip(laws, losses, strict=True)
        ]
        without.append(_lowest(again, weight))
    value = float(sum(w * law.loss(best[None])[0] for w, law in zip(weight, laws, strict=True)))
    return Optimum(best, np.min(without, axis=0), np.max(without, axis=0), value, _is_mean_of(best, shares))


def _checked(shares: np.ndarray, loss: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    shares, loss = np.asarray(shares, dtype=float), np.asarray(loss, dtype=float)
    sources = shares.shape[1]
    wrong = np.flatnonzero(~(np.abs(shares.sum(1) - 1) <= SHARES) | (shares < 0).any(1))
    if len(wrong):
        raise MeasureError(
            f"the shares of mixture {wrong[0]} are {shares[wrong[0]].tolist()}: they must be at least 0 and sum to 1."
        )
    if not (np.isfinite(loss) & (loss > 0)).all():
        raise MeasureError("a mixture law needs positive, finite losses. Leave the mixture out or correct its row.")
    needed = sources + SPARE
    if len(np.unique(shares, axis=0)) < needed:
        raise MeasureError(
            f"{len(np.unique(shares, axis=0))} different mixtures of {sources} sources: a mixture law needs at least "
            f"{needed} (one per source and {SPARE}). Train more mixtures, or merge sources."
        )
    if np.linalg.matrix_rank(shares, tol=1e-6) < sources:
        raise MeasureError("the shares of some sources vary together, so that their effects cannot be told apart.")
    return shares, loss


def _start(shares: np.ndarray, loss: np.ndarray, floor: float) -> np.ndarray:
    slopes = np.linalg.lstsq(shares, np.log(loss - floor), rcond=None)[0]
    return np.concatenate([[floor], slopes])


def _theta(law: MixtureLaw) -> np.ndarray:
    return np.concatenate([[law.floor], law.slopes])


def _search(shares: np.ndarray, loss: np.ndarray, starts: Sequence[np.ndarray]) -> MixtureLaw:
    """The best end of a bounded least-squares search of ln L from each start."""
    from scipy.optimize import least_squares

    log_loss, most = np.log(loss), 0.999 * loss.min()

    def residual(theta: np.ndarray) -> np.ndarray:
        return np.log(theta[0] + np.exp(np.minimum(shares @ theta[1:], 700.0))) - log_loss

    def jacobian(theta: np.ndarray) -> np.ndarray:
        power = np.exp(np.minimum(shares @ theta[1:], 700.0))
        return np.concatenate([np.ones((len(power), 1)), power[:, None] * shares], axis=1) / (theta[0] + power)[:, None]

    bounds = np.array([0.0, *[-np.inf] * shares.shape[1]]), np.array([most, *[np.inf] * shares.shape[1]])
    ends = []
    for start in starts:
        begin = np.clip(start, bounds[0] + 1e-9 * most, bounds[1] - 1e-9 * most)
        ends.append(least_squares(residual, begin, jacobian, bounds, x_scale="jac", ftol=1e-12, xtol=1e-12, gtol=1e-12))
    best = min(ends, key=lambda end: end.cost)
    return MixtureLaw(float(best.x[0]), best.x[1:], float(2 * best.cost))


def _lowest(laws: Sequence[MixtureLaw], weight: np.ndarray) -> np.ndarray:
    """The minimum of the weighted mean of laws on the simplex, by Frank and Wolfe's steps away and towards corners.

    Each step moves share from the worst source that has any to the best one, by a line search (pairwise steps:
    Lacoste-Julien and Jaggi 2015), until no move gains.
    """
    from scipy.optimize import minimize_scalar

    slopes = np.array([law.slopes for law in laws])
    sources = slopes.shape[1]
    shares = np.full(sources, 1 / sources)
    for _ in range(STEPS):
        gradient = (weight * np.exp(slopes @ shares)) @ slopes
        to = int(np.argmin(gradient))
        held = np.where(shares > 0, gradient, -np.inf)
        source = int(np.argmax(held))
        if gradient[source] - gradient[to] <= 1e-9 * np.abs(gradient).max():
            break
        towards = np.zeros(sources)
        towards[to], towards[source] = 1.0, -1.0
        line = slopes @ towards
        base = weight * np.exp(slopes @ shares)
        most = shares[source]
        slope_at_end = float((base * np.exp(line * most)) @ line)
        moved = (
            most
            if slope_at_end <= 0
            else minimize_scalar(
                lambda step, base=base, line=line: float(base @ np.exp(line * step)),
                bounds=(0.0, most), method="bounded", options={"xatol": 1e-10},
            ).x
        )  # fmt: skip
        shares = shares + moved * towards
        shares[source] = 0.0 if moved == most else shares[source]
    return shares


def _is_mean_of(shares: np.ndarray, tried: np.ndarray) -> bool:
    """Whether it lies in the convex hull of the mixtures that were tried."""
    from scipy.optimize import nnls

    # non-negative weights of the mixtures that give the shares also sum to 1, as all shares do
    return bool(nnls(tried.T, shares)[1] < 1e-6)

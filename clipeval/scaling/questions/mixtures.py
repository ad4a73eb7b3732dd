"""Laws of the mixture of training data: loss by the shares of its sources, and the mixture with the lowest.

The law of Ye et al. 2024 (arXiv 2403.16952), one per task: L(r) = c + k exp(sum_j t_j r_j) for shares r_j that sum to
1. As they do, k is no parameter of its own: L(r) = c + exp(sum_j s_j r_j) with s_j = t_j + ln k. A sum of such laws is
convex in r, so that its lowest mixture is unique as a value and found from anywhere. Where compute C varies too,
s_j + a_j ln C stands for s_j: with a single source that is a power law with a floor. Either all sources share one
exponent a, or each has its own, whichever has the lower AICc.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from clipeval.errors import MeasureError
from clipeval.scaling.laws.law import LEAST_WIDTH
from clipeval.scaling.minimise import Data, minimise

SPARE = 4
"""Mixtures beyond the number of sources that a fit needs."""
SHARES = 1e-6
"""How far the shares of a mixture may sum from 1."""
FLOORS = (0.0, 0.3, 0.6, 0.8, 0.9, 0.97)
"""Values of c to start from, as a part of the lowest loss."""
STEPS = 400
_WEBB = np.sqrt([0.5, 1.0, 1.5])


@dataclass(frozen=True)
class MixtureLaw:
    """L(r, C) = ``floor`` + exp((``slopes`` + ``exponents`` (ln C - ``centre``)) . r), with one slope and exponent per
    source; the higher, the less the source helps. ``exponents`` are 0 where compute does not vary, and equal where the
    sources share one. ``parameters`` counts what was fitted."""

    floor: float
    slopes: np.ndarray
    rss: float
    exponents: np.ndarray | float = 0.0
    centre: float = 0.0
    parameters: int = 0

    def loss(self, shares: np.ndarray, log_compute: np.ndarray | float | None = None) -> np.ndarray:
        """The loss ``[n]`` of mixtures ``[n, sources]``, at the ``centre`` where no compute is given."""
        above = (
            np.zeros(len(shares)) if log_compute is None else np.broadcast_to(log_compute, len(shares)) - self.centre
        )
        return self.floor + np.exp(shares @ self.slopes + (shares * self.exponents).sum(-1) * above)

    def at(self, log_compute: float | None) -> MixtureLaw:
        """The law of the mixture alone at this compute."""
        above = 0.0 if log_compute is None else log_compute - self.centre
        return replace(self, slopes=self.slopes + self.exponents * above, exponents=0.0)


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


def fit_mixture(shares: np.ndarray, loss: np.ndarray, log_compute: np.ndarray | None = None) -> MixtureLaw:
    """Least squares of ln L for runs on mixtures ``[n, sources]`` and their ``loss`` ``[n]`` (or error) on one task.

    ``log_compute`` ``[n]`` counts where it varies. Raises MeasureError for fewer mixtures than sources + 4, shares that
    do not sum to 1, and losses that are not positive.
    """
    require_mixtures(shares)
    _require_positive(loss)
    varies = log_compute is not None and float(np.ptp(log_compute)) >= LEAST_WIDTH
    forms = [_Form(shares, log_compute, each) for each in (False, True)] if varies else [_Form(shares)]
    return min((form.fit(loss) for form in forms), key=lambda law: _aicc(law, len(loss)))


def _aicc(law: MixtureLaw, n: int) -> float:
    k = law.parameters + 1
    with np.errstate(divide="ignore"):
        return float(n * np.log(law.rss / n) + 2 * k + 2 * k * (k + 1) / (n - k - 1)) if n - k - 1 > 0 else np.inf


def left_out(shares: np.ndarray, loss: np.ndarray, held: np.ndarray) -> np.ndarray:
    """Predicted over measured loss, minus 1, of the mixtures ``held`` (boolean ``[n]``), by the law of the others."""
    law = fit_mixture(shares[~held], loss[~held])
    return law.loss(shares[held]) / loss[held] - 1


def leave_mixture_out(
    shares: np.ndarray, loss: np.ndarray, log_compute: np.ndarray | None = None, law: MixtureLaw | None = None
) -> np.ndarray:
    """Predicted over measured loss, minus 1, of each run by the law of all runs on other mixtures: ``[n]``. The form is
    that of ``law``, by default of the one that is fitted to all."""
    law = law or fit_mixture(shares, loss, log_compute)
    group = groups(shares)
    ends = _without_each(shares, loss, log_compute, law)
    return np.array([
        float(ends[group[i]].loss(shares[i : i + 1], None if log_compute is None else log_compute[i])[0] / loss[i] - 1)
        for i in range(len(loss))
    ])  # fmt: skip


def best_mixture(
    shares: np.ndarray,
    losses: np.ndarray,
    weights: Sequence[float] | None = None,
    log_compute: np.ndarray | None = None,
    at: float | None = None,
) -> Optimum:
    """The shares that minimise the weighted mean over tasks, from runs on mixtures ``[n, sources]`` and losses
    ``[tasks, n]``, at the logarithm of compute ``at`` where compute varies.

    ``weights`` ``[tasks]`` are equal by default. Refusals are those of ``fit_mixture``.
    """
    losses = np.atleast_2d(losses)
    weight = np.ones(len(losses)) if weights is None else np.asarray(weights, dtype=float)
    weight = weight / weight.sum()
    laws = [fit_mixture(shares, loss, log_compute) for loss in losses]
    here = [law.at(at) for law in laws]
    best = lowest(here, weight)
    each = [_without_each(shares, loss, log_compute, law) for law, loss in zip(laws, losses, strict=True)]
    without = [lowest([law.at(at) for law in some], weight) for some in zip(*each, strict=True)]
    value = float(sum(w * law.loss(best[None])[0] for w, law in zip(weight, here, strict=True)))
    return Optimum(best, np.min(without, axis=0), np.max(without, axis=0), value, _is_mean_of(best, shares))


def laws_again(
    shares: np.ndarray,
    losses: np.ndarray,
    log_compute: np.ndarray | None,
    laws: Sequence[MixtureLaw],
    draws: int,
    generator: np.random.Generator,
) -> list[list[MixtureLaw]]:
    """Laws ``[draws][tasks]`` of data sets that the fitted ``laws`` would give: the residuals of a mixture, of all runs
    and tasks, are multiplied by one number of mean 0 and variance 1 (Webb 2023, Can. J. Econ. 56:839), as runs of a
    mixture may err together. They are those from the law of the other mixtures, as the law of all is drawn to its few
    mixtures."""
    group = groups(shares)
    factor = generator.choice([*_WEBB, *-_WEBB], size=(draws, int(group.max()) + 1))[:, group]
    found = []
    for law, loss in zip(laws, losses, strict=True):
        residual = -np.log1p(leave_mixture_out(shares, loss, log_compute, law))
        again = np.log(law.loss(shares, log_compute)) + factor * residual
        found.append(_Form.of(law, shares, log_compute).refit(again, np.ones(factor.shape), law))
    return [list(some) for some in zip(*found, strict=True)]


def groups(shares: np.ndarray) -> np.ndarray:
    """The number of the mixture of each run ``[n]``."""
    return np.unique(shares.round(9), axis=0, return_inverse=True)[1].reshape(-1)


def require_mixtures(shares: np.ndarray) -> None:
    """Raises MeasureError for shares ``[n, sources]`` that are none, that are too few, or that vary together."""
    sources = shares.shape[1]
    wrong = np.flatnonzero(~(np.abs(shares.sum(1) - 1) <= SHARES) | (shares < 0).any(1))
    if len(wrong):
        raise MeasureError(
            f"the shares of mixture {wrong[0]} are {shares[wrong[0]].tolist()}: they must be at least 0 and sum to 1."
        )
    needed, there = sources + SPARE, int(groups(shares).max()) + 1
    if there < needed:
        raise MeasureError(
            f"{there} different mixtures of {sources} sources: a mixture law needs at least "
            f"{needed} (one per source and {SPARE}). Train more mixtures, or merge sources."
        )
    if np.linalg.matrix_rank(shares, tol=1e-6) < sources:
        raise MeasureError("the shares of some sources vary together, so that their effects cannot be told apart.")


def _require_positive(loss: np.ndarray) -> None:
    if not (np.isfinite(loss) & (loss > 0)).all():
        raise MeasureError("a mixture law needs positive, finite losses. Leave the mixture out or correct its row.")


class _Form:
    """What the exponential is of: the shares, and their products with ln C, or ln C alone."""

    def __init__(self, shares: np.ndarray, log_compute: np.ndarray | None = None, each: bool = False) -> None:
        self._sources, self._each = shares.shape[1], each
        parts, self._centre = [shares], 0.0
        if log_compute is not None:
            self._centre = float(log_compute.mean())
            above = (log_compute - self._centre)[:, None]
            parts.append(shares * above if each else above)
        self._features = np.concatenate(parts, axis=1)

    @classmethod
    def of(cls, law: MixtureLaw, shares: np.ndarray, log_compute: np.ndarray | None) -> _Form:
        """That of a law that was fitted to these runs."""
        sources = shares.shape[1]
        return cls(shares, log_compute if law.parameters > sources + 1 else None, law.parameters == 2 * sources + 1)

    def fit(self, loss: np.ndarray) -> MixtureLaw:
        """The best end of a search from several floors."""
        starts = []
        for floor in FLOORS:
            floor *= loss.min()
            slopes = np.linalg.lstsq(self._features, np.log(loss - floor), rcond=None)[0]
            starts.append([floor, *slopes])
        shape = (len(starts), len(loss))
        ends = self._search(np.broadcast_to(np.log(loss), shape), np.ones(shape), np.array(starts))
        return min(ends, key=lambda law: law.rss)

    def refit(self, log_loss: np.ndarray, weights: np.ndarray, law: MixtureLaw) -> list[MixtureLaw]:
        """Laws of several data sets ``[B, n]`` with weights, searched from ``law``."""
        exponents = np.broadcast_to(law.exponents, self._sources)
        more = self._features.shape[1] - self._sources
        start = np.array([law.floor, *law.slopes, *exponents[:more]])
        return self._search(log_loss, weights, np.broadcast_to(start, (len(log_loss), len(start))))

    def log_error(self, features: np.ndarray, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """ln L ``[B, n]`` and its gradient, as ``minimise`` asks."""
        floor = theta[:, 0, None]
        power = np.exp(np.minimum((features @ theta[:, 1:, None])[..., 0], 700.0))
        gradient = np.concatenate([np.ones((*power.shape, 1)), power[..., None] * features], axis=-1)
        return np.log(floor + power), gradient / (floor + power)[..., None]

    def _search(self, log_loss: np.ndarray, weights: np.ndarray, starts: np.ndarray) -> list[MixtureLaw]:
        features = np.broadcast_to(self._features, (len(starts), *self._features.shape))
        free = np.full(features.shape[2], np.inf)
        most = 0.999 * np.exp(np.where(weights > 0, log_loss, np.inf).min(1, keepdims=True))
        high = np.concatenate([most, np.broadcast_to(free, (len(starts), len(free)))], axis=1)
        found = minimise(self, Data(features, log_loss, weights), starts, (np.array([0.0, *-free]), high))
        return [
            self._law(theta, 2 * float(cost)) for theta, cost in zip(found.theta, found.objective, strict=True)
        ]  # fmt: skip

    def _law(self, theta: np.ndarray, rss: float) -> MixtureLaw:
        floor, slopes, exponents = theta[0], theta[1 : self._sources + 1], theta[self._sources + 1 :]
        of_source = np.broadcast_to(exponents, self._sources) if len(exponents) else np.zeros(self._sources)
        return MixtureLaw(float(floor), slopes, rss, of_source, self._centre, len(theta))


def _without_each(
    shares: np.ndarray, loss: np.ndarray, log_compute: np.ndarray | None, law: MixtureLaw
) -> list[MixtureLaw]:
    """The law without each of the mixtures, in the order of ``groups``."""
    group = groups(shares)
    weights = (group != np.arange(group.max() + 1)[:, None]).astype(float)
    form = _Form.of(law, shares, log_compute)
    return form.refit(np.broadcast_to(np.log(loss), weights.shape), weights, law)


def lowest(laws: Sequence[MixtureLaw], weight: np.ndarray) -> np.ndarray:
    """The minimum of the weighted mean of laws on the simplex, by Frank and Wolfe's steps away and towards corners.

    Each step moves share from the worst source that has any to the best one, by a line search (pairwise steps:
    Lacoste-Julien and Jaggi 2015), until no move gains.
    """
    slopes = np.array([law.slopes for law in laws])
    sources = slopes.shape[1]
    if len(laws) == 1:
        return np.eye(sources)[int(np.argmin(slopes[0]))]
    shares = np.full(sources, 1 / sources)
    for _ in range(STEPS):
        gradient = (weight * np.exp(slopes @ shares)) @ slopes
        to = int(np.argmin(gradient))
        held = np.where(shares > 0, gradient, -np.inf)
        source = int(np.argmax(held))
        if gradient[source] - gradient[to] <= 1e-9 * np.abs(gradient).max():
            break
        line = slopes[:, to] - slopes[:, source]
        moved = _step(weight * np.exp(slopes @ shares), line, shares[source])
        shares[to] += moved
        shares[source] = 0.0 if moved == shares[source] else shares[source] - moved
    return shares


def _step(base: np.ndarray, line: np.ndarray, most: float) -> float:
    """Where sum(base exp(line t)) is lowest for t from 0, where it falls, to ``most``."""
    if float((base * np.exp(line * most)) @ line) <= 0:
        return most
    low, high, t = 0.0, most, most / 2
    for _ in range(60):  # Newton's steps on a convex function, kept between the ends by halving
        power = base * np.exp(line * t)
        slope = float(power @ line)
        low, high = (low, t) if slope > 0 else (t, high)
        newton = t - slope / float(power @ line**2)
        if abs(newton - t) <= 1e-12:
            break
        t = newton if low < newton < high else (low + high) / 2
    return t


def _is_mean_of(shares: np.ndarray, tried: np.ndarray) -> bool:
    """Whether it lies in the convex hull of the mixtures that were tried."""
    from scipy.optimize import nnls

    # non-negative weights of the mixtures that give the shares also sum to 1, as all shares do
    return bool(nnls(tried.T, shares)[1] < 1e-6)

"""Levenberg-Marquardt for many small curve fits at once: all starts of one fit, or all draws of a bootstrap."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

ITERATIONS = 300
ROUNDING = 1e-14
"""Relative change of an objective below which it is rounding error."""
LEAST_DAMPING = 1e-12
"""In units of the diagonal: less would leave a matrix singular whose columns are the same."""
NO_EFFECT = 1e-6
"""A coordinate whose column of the Jacobian is so much shorter than the longest one does not move."""
Bounds = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Loss:
    """The price of a residual r: ``side(r) * huber(r)``, with side = 2 tau where r > 0 and 2 (1 - tau) elsewhere.

    huber(r) is r**2 / 2 up to ``delta`` and grows linearly from there (Huber 1964, Ann. Math. Stat. 35:73). An infinite
    delta with tau 1/2 is least squares, a small one with another tau is quantile regression, smoothed within delta.
    """

    delta: float = np.inf
    tau: float = 0.5

    def cost(self, residual: np.ndarray) -> np.ndarray:
        """The price, elementwise."""
        size = np.abs(residual)
        near = np.minimum(size, self.delta)
        return self._side(residual) * near * (size - near / 2)

    def slope(self, residual: np.ndarray) -> np.ndarray:
        """Its derivative."""
        return self._side(residual) * np.clip(residual, -self.delta, self.delta)

    def curvature(self, residual: np.ndarray) -> np.ndarray:
        """Its second derivative."""
        return self._side(residual) * (np.abs(residual) <= self.delta)

    def majorant(self, residual: np.ndarray) -> np.ndarray:
        """The curvature of the parabola that touches the price at r and lies above it."""
        return self._side(residual) * np.minimum(1.0, self.delta / np.maximum(np.abs(residual), 1e-300))

    def _side(self, residual: np.ndarray) -> np.ndarray:
        return np.where(residual > 0, 2 * self.tau, 2 - 2 * self.tau)


LEAST_SQUARES = Loss()
HUBER = Loss(delta=1e-3)
"""The loss of the Chinchilla fits (Hoffmann et al. 2022, arXiv 2203.15556): nearly absolute residuals of ln E."""


class Curve(Protocol):
    """What is minimised over: ln E and its gradient at the coordinates of ``B`` problems."""

    def log_error(self, log_x: np.ndarray, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """``[B, n]`` and ``[B, n, k]`` for ``log_x`` ``[B, n]`` (``[B, n, inputs]``) and ``theta`` ``[B, k]``."""
        ...


@dataclass(frozen=True)
class Data:
    """``B`` problems of ``n`` points: logarithms of scaled inputs, of errors, and weights."""

    log_x: np.ndarray
    log_error: np.ndarray
    weights: np.ndarray

    def __getitem__(self, problems: np.ndarray) -> Data:
        return Data(self.log_x[problems], self.log_error[problems], self.weights[problems])


@dataclass(frozen=True)
class Minimum:
    """Coordinates ``[B, k]`` and objective ``[B]`` at the end of the search, and how steep it still is there.

    ``steepness`` ``[B]`` is the largest cosine between the residuals and a column of the Jacobian that is not held by
    a bound: 0 at a minimum.
    """

    theta: np.ndarray
    objective: np.ndarray
    steepness: np.ndarray


@dataclass(frozen=True)
class _Local:
    """The objective, its gradient, and the two curvature matrices of each problem."""

    objective: np.ndarray
    gradient: np.ndarray
    hessian: np.ndarray
    majorant: np.ndarray

    @classmethod
    def at(cls, curve: Curve, data: Data, theta: np.ndarray, loss: Loss) -> _Local:
        value, jacobian = curve.log_error(data.log_x, theta)
        residual = data.log_error - value
        transposed = np.swapaxes(jacobian, 1, 2)

        def gram(curvature: np.ndarray) -> np.ndarray:
            return transposed @ (jacobian * (data.weights * curvature)[..., None])

        majorant = gram(loss.majorant(residual))
        return cls(
            objective=(data.weights * loss.cost(residual)).sum(-1),
            gradient=-(transposed @ (data.weights * loss.slope(residual))[..., None])[..., 0],
            hessian=majorant if np.isinf(loss.delta) else gram(loss.curvature(residual)),
            majorant=majorant,
        )

    def __getitem__(self, problems: np.ndarray) -> _Local:
        return _Local(*(part[problems] for part in (self.objective, self.gradient, self.hessian, self.majorant)))

    def put(self, problems: np.ndarray, other: _Local) -> None:
        for name in ("objective", "gradient", "hessian", "majorant"):
            getattr(self, name)[problems] = getattr(other, name)


def minimise(curve: Curve, data: Data, start: np.ndarray, bounds: Bounds, loss: Loss = LEAST_SQUARES) -> Minimum:
    """The minimum of the weighted price of log residuals that each problem's ``start`` ``[B, k]`` leads to.

    The lower and the upper ``bounds`` of the coordinates broadcast to ``[B, k]``; equal ones hold one fixed. The steps
    are Marquardt's (1963, J. SIAM 11:431), projected on the bounds; a coordinate at its bound stays there as long as
    the objective falls towards the outside.
    """
    # a trial step may overflow; its objective is then not below the present one, and it is not taken
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        return _minimise(curve, data, start, bounds, loss)


def _minimise(curve: Curve, data: Data, start: np.ndarray, bounds: Bounds, loss: Loss) -> Minimum:
    low, high = (np.broadcast_to(bound, start.shape) for bound in bounds)
    theta = np.clip(start, low, high)
    local = _Local.at(curve, data, theta, loss)
    damping = np.full(len(theta), 1e-2)
    active = np.arange(len(theta))
    for _ in range(ITERATIONS):
        here = local[active]
        trial = _trial(here, theta[active], low[active], high[active], damping[active])
        moved = trial - theta[active]
        there = _Local.at(curve, data[active], trial, loss)
        better = there.objective < here.objective
        local.put(active[better], there[better])
        theta[active[better]] = trial[better]
        damping[active] = np.maximum(damping[active] * np.where(better, 0.2, 5.0), LEAST_DAMPING)
        promised = -(moved * here.gradient).sum(-1)
        settled = (promised <= ROUNDING * here.objective) | (damping[active] > 1e12)
        active = active[~settled]
        if not len(active):
            break
    return Minimum(theta, local.objective, _steepness(theta, local, low, high))


def _free(theta: np.ndarray, gradient: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Which coordinates may move: not those that a bound holds against the descent."""
    return ~(((theta <= low) & (gradient >= 0)) | ((theta >= high) & (gradient <= 0)) | (low == high))


def _trial(local: _Local, theta: np.ndarray, low: np.ndarray, high: np.ndarray, damping: np.ndarray) -> np.ndarray:
    """The end of a damped Newton step; coordinates that would leave their bounds stop there, and the others adapt."""
    free = _free(theta, local.gradient, low, high)
    step = _step(local, local.gradient, free, damping)
    inside = np.clip(step, low - theta, high - theta)
    stopped = free & (step != inside)
    if stopped.any():
        onto_bound = np.where(stopped, inside, 0.0)
        gradient = local.gradient + (local.hessian @ onto_bound[..., None])[..., 0]
        step = onto_bound + _step(local, gradient, free & ~stopped, damping)
    return np.clip(theta + step, low, high)


def _step(local: _Local, gradient: np.ndarray, free: np.ndarray, damping: np.ndarray) -> np.ndarray:
    """The damped Newton step of the free coordinates, in units in which the diagonal of the majorant is 1.

    A coordinate without effect, as that of a term that vanished, stays where it is: in a batch one such problem would
    leave a singular matrix, and no step for any.
    """
    k = free.shape[1]
    size = np.sqrt(np.einsum("bkk->bk", local.majorant))
    moves = free & (size > NO_EFFECT * size.max(-1, keepdims=True))
    unit = np.where(moves, size, 1.0)
    matrix = local.hessian * (moves[:, :, None] & moves[:, None, :]) / (unit[:, :, None] * unit[:, None, :])
    matrix[:, np.arange(k), np.arange(k)] += np.where(moves, damping[:, None], 1.0)
    return -np.linalg.solve(matrix, np.where(moves, gradient / unit, 0.0)[..., None])[..., 0] / unit


def _steepness(theta: np.ndarray, local: _Local, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    free = _free(theta, local.gradient, low, high)
    norm = np.sqrt(np.einsum("bkk->bk", local.majorant) * 2 * local.objective[:, None])
    return np.max(np.where(free, np.abs(local.gradient) / np.maximum(norm, 1e-300), 0.0), axis=1)

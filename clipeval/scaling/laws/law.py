"""What the laws share that have no closed-form fit."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from clipeval.scaling.minimise import Data, Loss

STEEPEST, FLATTEST = -5.0, 0.0
"""Bounds of the exponents of laws with a floor: such a law falls."""


LEAST_WIDTH, LEAST_SPREAD = np.log(1.02), 0.02


class Law(ABC):
    """A law in two sets of numbers: natural parameters for users, and well-conditioned coordinates for the solver.

    Coordinates belong to inputs divided by their geometric mean; ``log_scale`` is the logarithm of that mean.
    """

    name: str
    names: tuple[str, ...]
    inputs: int = 1
    of_shares: bool = False
    """Whether its errors end at 1, as a loss does not."""

    @abstractmethod
    def log_error(self, log_x: np.ndarray, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """ln E ``[B, n]`` and its gradient ``[B, n, k]``, for scaled inputs and coordinates ``theta`` ``[B, k]``."""

    @abstractmethod
    def parameters(self, theta: np.ndarray, log_scale: np.ndarray) -> np.ndarray:
        """Natural parameters ``[..., k]`` from coordinates."""

    @abstractmethod
    def coordinates(self, params: np.ndarray, log_scale: np.ndarray) -> np.ndarray:
        """Coordinates ``[..., k]`` from natural parameters."""

    @abstractmethod
    def bounds(self, log_x: np.ndarray, error: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The lowest and highest coordinates, ``[k]`` for data of ``n`` points, ``[B, k]`` for ``[B, n]``."""

    @abstractmethod
    def starts(self, log_x: np.ndarray, error: np.ndarray) -> np.ndarray:
        """Coordinates ``[starts, k]`` to begin from: a grid over the nonlinear ones, the others solved for."""

    def doubt(self, error: np.ndarray) -> str:
        """What of the errors ``[n]`` the law cannot describe; empty where it can all."""
        return ""

    def inverse(self, error: np.ndarray, params: np.ndarray) -> np.ndarray:
        """The scale at which the law reaches each ``error`` ``[n]``; NaN where it never does."""
        return np.full(np.broadcast_shapes(np.shape(error), (*params.shape[:-1], np.size(error))), np.nan)

    def log_scale(self, log_x: np.ndarray) -> np.ndarray:
        """The logarithm of the geometric mean of each input, ``[]`` or ``[inputs]``."""
        return log_x.mean(0)

    def varying(self, log_x: np.ndarray) -> np.ndarray:
        """Of ``log_x`` ``[B, n(, inputs)]`` those ``[B, n, m]`` that must vary independently of each other for the law
        to be determined."""
        return log_x if self.inputs > 1 else log_x[..., None]

    def closed_form(self, data: Data, loss: Loss, begin: np.ndarray | None = None) -> np.ndarray | None:
        """Coordinates ``[B, k]`` of ``B`` fits at once, where the loss allows a solution without a search for
        stationary points. ``begin`` ``[B, k]`` is near them."""
        return None

    def error(self, x: np.ndarray, params: np.ndarray) -> np.ndarray:
        """The predicted error ``[n]``, or ``[draws, n]`` for ``params`` ``[draws, k]``."""
        params = np.asarray(params, dtype=float)
        log_x = np.log(np.asarray(x, dtype=float))
        with np.errstate(divide="ignore"):
            theta = self.coordinates(np.atleast_2d(params), np.zeros_like(log_x[0]))
        value, _ = self.log_error(np.broadcast_to(log_x, (len(theta), *log_x.shape)), theta)
        return np.exp(value if params.ndim > 1 else value[0])


def columns(theta: np.ndarray) -> tuple[np.ndarray, ...]:
    """The coordinates of ``theta`` ``[..., k]``, each ``[..., 1]`` to go with points."""
    return tuple(theta[..., j, None] for j in range(theta.shape[-1]))


def stack(*parts: np.ndarray | float) -> np.ndarray:
    """Arrays broadcast against each other and stacked along a new last axis."""
    return np.stack(np.broadcast_arrays(*parts), axis=-1)


def append(coordinates: np.ndarray, value: np.ndarray | float) -> np.ndarray:
    """``coordinates`` ``[..., k]`` with one more at the end."""
    shape = np.broadcast_shapes(coordinates.shape[:-1], np.shape(value))
    parts = (np.broadcast_to(coordinates, (*shape, coordinates.shape[-1])), np.broadcast_to(value, shape)[..., None])
    return np.concatenate(parts, axis=-1)


def logistic(z: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-z)), 0 where exp(-z) overflows."""
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-z))


def scale_at(ratio: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """The x at which x**alpha is ``ratio``; NaN where that is not positive."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return np.where(ratio > 0, np.abs(ratio), np.nan) ** (1 / alpha)


def vary(log_x: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Whether the scales ``[B, n, m]`` of the points with ``weights`` ``[B, n]`` vary enough for exponents: ``[B]``.

    One scale by 2 % between the ends; several independently of each other, by a standard deviation of ln x of 0.02 in
    the direction in which they vary least. Less is rounding, of which an exponent would be made.
    """
    if log_x.shape[-1] == 1:
        there, one = weights > 0, log_x[..., 0]
        if not there.all():
            one = np.where(there, one, np.nan)
        one = np.ascontiguousarray(one.T)  # of few points each, over which numpy reduces slowly
        return np.fmax.reduce(one, axis=0) - np.fmin.reduce(one, axis=0) >= LEAST_WIDTH
    share = (weights / weights.sum(-1, keepdims=True))[..., None]
    centred = log_x - (share * log_x).sum(1, keepdims=True)
    return np.linalg.eigvalsh(np.swapaxes(centred, 1, 2) @ (share * centred))[:, 0] >= LEAST_SPREAD**2


def linear_start(features: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Least-squares coefficients ``[k]`` of ``target`` ``[n]`` on ``features`` ``[n, k]``."""
    return np.linalg.lstsq(features, target, rcond=None)[0]

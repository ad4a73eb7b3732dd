"""Power laws that level off: at an irreducible error, or at small scale."""

from __future__ import annotations

import numpy as np

from clipeval.scaling.laws.law import FLATTEST, STEEPEST, Law, append, columns, linear_start, scale_at, stack

FLOORS = np.array([0.0, 0.3, 0.6, 0.8, 0.9, 0.97])
"""Irreducible errors to start from, as a part of the lowest error seen."""
SHIFTS = np.linspace(-6.0, 3.0, 7)
"""Logarithms of the shifts to start from, of x in units of its geometric mean."""


class PowerFloor(Law):
    """E = beta * x**alpha + e_inf, falling, with ``e_inf`` between 0 and the lowest error seen."""

    name = "power_floor"
    names = ("alpha", "beta", "e_inf")

    def log_error(self, log_x: np.ndarray, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        alpha, level, e_inf = columns(theta)
        power = np.exp(level + alpha * log_x)
        error = power + e_inf
        return np.log(error), stack(power * log_x, power, 1.0) / error[..., None]

    def parameters(self, theta: np.ndarray, log_scale: np.ndarray) -> np.ndarray:
        alpha, level, e_inf = np.moveaxis(theta, -1, 0)
        return stack(alpha, np.exp(level - alpha * log_scale), e_inf)

    def coordinates(self, params: np.ndarray, log_scale: np.ndarray) -> np.ndarray:
        alpha, beta, e_inf = np.moveaxis(params, -1, 0)
        return stack(alpha, np.log(beta) + alpha * log_scale, e_inf)

    def bounds(self, log_x: np.ndarray, error: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return stack(STEEPEST, -np.inf, 0.0), stack(FLATTEST, np.inf, error.min(-1))

    def starts(self, log_x: np.ndarray, error: np.ndarray) -> np.ndarray:
        features = np.stack([log_x, np.ones_like(log_x)], axis=-1)
        floors = FLOORS * error.min()
        return np.array([(*linear_start(features, np.log(error - floor)), floor) for floor in floors])

    def inverse(self, error: np.ndarray, params: np.ndarray) -> np.ndarray:
        alpha, beta, e_inf = columns(params)
        return scale_at((error - e_inf) / beta, alpha)


class Shifted(Law):
    """E = beta * (x + shift)**alpha, with ``shift`` > 0: flat below the shift (Zhai et al. 2022, arXiv 2106.04560)."""

    name = "shifted"
    names: tuple[str, ...] = ("alpha", "beta", "shift")

    def log_error(self, log_x: np.ndarray, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        alpha, level, log_shift = columns(theta)
        log_sum = np.logaddexp(log_x, log_shift)
        return level + alpha * log_sum, stack(log_sum, 1.0, alpha * np.exp(log_shift - log_sum))

    def parameters(self, theta: np.ndarray, log_scale: np.ndarray) -> np.ndarray:
        alpha, level, log_shift = np.moveaxis(theta, -1, 0)
        return stack(alpha, np.exp(level - alpha * log_scale), np.exp(log_shift + log_scale))

    def coordinates(self, params: np.ndarray, log_scale: np.ndarray) -> np.ndarray:
        alpha, beta, shift = np.moveaxis(params, -1, 0)
        return stack(alpha, np.log(beta) + alpha * log_scale, np.log(shift) - log_scale)

    def bounds(self, log_x: np.ndarray, error: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        least, most = log_x.min(-1) - 10.0, log_x.max(-1) + 5.0
        return stack(STEEPEST, -np.inf, least), stack(FLATTEST, np.inf, most)

    def starts(self, log_x: np.ndarray, error: np.ndarray) -> np.ndarray:
        return np.array([(*_line(np.logaddexp(log_x, shift), np.log(error)), shift) for shift in SHIFTS])

    def inverse(self, error: np.ndarray, params: np.ndarray) -> np.ndarray:
        alpha, beta, shift = columns(params)
        x = scale_at(error / beta, alpha) - shift
        return np.where(x > 0, x, np.nan)


class ShiftedFloor(Law):
    """E = beta * (x + shift)**alpha + e_inf (Nezhurina et al. 2025, arXiv 2506.04598)."""

    name = "shifted_floor"
    names = ("alpha", "beta", "shift", "e_inf")
    _shifted = Shifted()

    def log_error(self, log_x: np.ndarray, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        log_power, gradient = self._shifted.log_error(log_x, theta[..., :3])
        power = np.exp(log_power)
        error = power + theta[..., 3, None]
        gradient = np.concatenate([gradient * power[..., None], np.ones((*power.shape, 1))], axis=-1)
        return np.log(error), gradient / error[..., None]

    def parameters(self, theta: np.ndarray, log_scale: np.ndarray) -> np.ndarray:
        return np.concatenate([self._shifted.parameters(theta[..., :3], log_scale), theta[..., 3:]], axis=-1)

    def coordinates(self, params: np.ndarray, log_scale: np.ndarray) -> np.ndarray:
        return np.concatenate([self._shifted.coordinates(params[..., :3], log_scale), params[..., 3:]], axis=-1)

    def bounds(self, log_x: np.ndarray, error: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        low, high = self._shifted.bounds(log_x, error)
        return append(low, 0.0), append(high, error.min(-1))

    def starts(self, log_x: np.ndarray, error: np.ndarray) -> np.ndarray:
        floors = FLOORS * error.min()
        return np.concatenate([np.insert(self._shifted.starts(log_x, error - f), 3, f, axis=1) for f in floors])

    def inverse(self, error: np.ndarray, params: np.ndarray) -> np.ndarray:
        return self._shifted.inverse(error - params[..., 3, None], params[..., :3])


def _line(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return linear_start(np.stack([x, np.ones_like(x)], axis=-1), y)

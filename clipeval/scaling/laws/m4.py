"""M4 of Alabdulmohsin, Neyshabur and Zhai 2022 (arXiv 2209.06640): between a ceiling and a floor."""

from __future__ import annotations

import numpy as np

from clipeval.scaling.laws.law import FLATTEST, STEEPEST, Law, columns, linear_start, logistic, scale_at, stack

SHAPES = (0.02, 20.0)
STEPS = 60


class M4(Law):
    """(E - e_inf) * ((e_0 - e_inf) / (e_0 - E))**shape = beta * x**alpha, with E between ``e_inf`` and ``e_0``.

    ``e_0`` is the error of an untrained model. The authors write (E - e_inf) / (e_0 - E)**shape = b * x**alpha: beta
    is b * (e_0 - e_inf)**shape, so that E = beta * x**alpha + e_inf at large x, as in the other laws.
    """

    name = "m4"
    names = ("alpha", "beta", "e_inf", "e_0", "shape")
    of_shares = True

    def log_error(self, log_x: np.ndarray, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        alpha, level, e_inf, e_0, log_shape = columns(theta)
        shape, span = np.exp(log_shape), e_0 - e_inf
        logit, slope = _solve(level + alpha * log_x - np.log(span), shape)
        part = logistic(logit)
        error = e_inf + span * part
        by_level = span * part * (1 - part) / slope
        # beta * x**alpha is compared with the span, which moves with e_inf and e_0
        by_span = part - by_level / span
        by_shape = -by_level * np.logaddexp(0.0, logit) * shape
        gradient = stack(by_level * log_x, by_level, 1 - by_span, by_span, by_shape)
        return np.log(error), gradient / error[..., None]

    def parameters(self, theta: np.ndarray, log_scale: np.ndarray) -> np.ndarray:
        alpha, level, e_inf, e_0, log_shape = np.moveaxis(theta, -1, 0)
        return stack(alpha, np.exp(level - alpha * log_scale), e_inf, e_0, np.exp(log_shape))

    def coordinates(self, params: np.ndarray, log_scale: np.ndarray) -> np.ndarray:
        alpha, beta, e_inf, e_0, shape = np.moveaxis(params, -1, 0)
        return stack(alpha, np.log(beta) + alpha * log_scale, e_inf, e_0, np.log(shape))

    def bounds(self, log_x: np.ndarray, error: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        low = stack(STEEPEST, -np.inf, 0.0, np.minimum(error.max(-1), 1.0), np.log(SHAPES[0]))
        return low, stack(FLATTEST, np.inf, 0.999 * error.min(-1), 1.0, np.log(SHAPES[1]))

    def starts(self, log_x: np.ndarray, error: np.ndarray) -> np.ndarray:
        found = []
        for floor in error.min() * np.array([0.0, 0.3, 0.6, 0.8, 0.95]):
            for ceiling in 1 - (1 - error.max()) * np.array([0.0, 0.1, 0.5, 0.95]):
                lift = np.log((ceiling - floor) / np.maximum(ceiling - error, 1e-6))
                features = np.stack([log_x, np.ones_like(log_x), -lift], axis=-1)
                alpha, level, shape = linear_start(features, np.log(error - floor))
                found.append((alpha, level, floor, ceiling, np.log(np.clip(shape, *SHAPES))))
        return np.array(found)

    def inverse(self, error: np.ndarray, params: np.ndarray) -> np.ndarray:
        alpha, beta, e_inf, e_0, shape = columns(params)
        below = np.where(error < e_0, e_0 - error, np.nan)
        return scale_at((error - e_inf) * ((e_0 - e_inf) / below) ** shape / beta, alpha)


def _solve(target: np.ndarray, shape: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The logit z of w in (0, 1) with ln w - shape * ln(1 - w) = ``target``, and the derivative of that by z.

    The left side is convex or concave in z and its slope lies between 1 and ``shape``, so that Newton's method finds
    the root from anywhere.
    """
    logit = np.where(target > 0, target / shape, target)
    for _ in range(STEPS):
        value = shape * np.logaddexp(0.0, logit) - np.logaddexp(0.0, -logit)
        slope = logistic(-logit) + shape * logistic(logit)
        step = (value - target) / slope
        logit = logit - step
        if np.all(np.abs(step) <= 1e-14 * (1 + np.abs(logit))):
            break
    return logit, slope

"""A power law that turns into another one: the smoothly broken law of Caballero et al. 2023 (arXiv 2210.14891)."""

from __future__ import annotations

import numpy as np

from clipeval.scaling.laws.floor import FLOORS
from clipeval.scaling.laws.law import STEEPEST, Law, columns, linear_start, logistic, stack

WIDTHS = np.array([0.15, 0.6, 2.0])
NARROWEST, WIDEST = 0.02, 10.0
BREAKS = np.array([0.15, 0.35, 0.5, 0.65, 0.85])
"""Breaks to start from, as a part of the range of ln x."""


class Broken(Law):
    """E = beta * x**alpha * (1 + (break / x)**(1 / width))**((alpha - alpha_before) * width) + e_inf.

    The exponent is ``alpha_before`` below the ``break`` and ``alpha`` above it; ``width`` is the width of the turn in
    ln x. In the paper's terms: c_0 = -alpha_before, c_1 = alpha_before - alpha, f_1 = width, d_1 = break.
    """

    name = "broken"
    names = ("alpha", "beta", "alpha_before", "break", "width", "e_inf")

    def log_error(self, log_x: np.ndarray, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        alpha, level, before, log_break, log_width, e_inf = columns(theta)
        width = np.exp(log_width)
        distance = (log_break - log_x) / width
        turn = width * np.logaddexp(0.0, distance)
        below = logistic(distance)
        change = alpha - before
        power = np.exp(level + alpha * log_x + change * turn)
        error = power + e_inf
        by_width = change * (turn - width * distance * below)
        gradient = stack(log_x + turn, 1.0, -turn, change * below, by_width) * power[..., None]
        gradient = np.concatenate([gradient, np.ones((*power.shape, 1))], axis=-1)
        return np.log(error), gradient / error[..., None]

    def parameters(self, theta: np.ndarray, log_scale: np.ndarray) -> np.ndarray:
        alpha, level, before, log_break, log_width, e_inf = np.moveaxis(theta, -1, 0)
        beta = np.exp(level - alpha * log_scale)
        return stack(alpha, beta, before, np.exp(log_break + log_scale), np.exp(log_width), e_inf)

    def coordinates(self, params: np.ndarray, log_scale: np.ndarray) -> np.ndarray:
        alpha, beta, before, break_, width, e_inf = np.moveaxis(params, -1, 0)
        level = np.log(beta) + alpha * log_scale
        return stack(alpha, level, before, np.log(break_) - log_scale, np.log(width), e_inf)

    def bounds(self, log_x: np.ndarray, error: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        low = stack(STEEPEST, -np.inf, STEEPEST, log_x.min(-1), np.log(NARROWEST), 0.0)
        return low, stack(-STEEPEST, np.inf, -STEEPEST, log_x.max(-1), np.log(WIDEST), error.min(-1))

    def starts(self, log_x: np.ndarray, error: np.ndarray) -> np.ndarray:
        found = []
        for log_break in log_x.min() + BREAKS * np.ptp(log_x):
            for width in WIDTHS:
                turn = width * np.logaddexp(0.0, (log_break - log_x) / width)
                features = np.stack([log_x, np.ones_like(log_x), turn], axis=-1)
                for floor in FLOORS * error.min():
                    alpha, level, change = linear_start(features, np.log(error - floor))
                    found.append((alpha, level, alpha - change, log_break, np.log(width), floor))
        return np.array(found)

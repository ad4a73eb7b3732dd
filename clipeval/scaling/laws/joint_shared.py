"""Model size and data with one exponent (Gadre et al. 2024, arXiv 2403.08540)."""

from __future__ import annotations

import numpy as np

from clipeval.scaling.laws.joint import VANISHED, JointND
from clipeval.scaling.laws.law import FLATTEST, STEEPEST, Law, stack

EXPONENTS = (-0.06, -0.12, -0.2, -0.3, -0.45, -0.6, -1.2)


class JointShared(Law):
    """E = e_inf + a * N**alpha_nd + b * D**alpha_nd, of inputs (N, D): parameters and samples.

    The authors write e_inf + (a' * M**eta + b' * M**-eta) * C**-eta, with M = D / N and C = 6 N D: alpha_nd is -2 eta.
    The best N for a given compute is then proportional to its square root.
    """

    name = "joint_shared"
    names = ("e_inf", "a", "b", "alpha_nd")
    inputs = 2
    _joint = JointND()

    def log_error(self, log_x: np.ndarray, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        value, gradient = self._joint.log_error(log_x, theta[..., [0, 1, 3, 2, 3]])
        by_exponent = gradient[..., 2] + gradient[..., 4]
        return value, stack(gradient[..., 0], gradient[..., 1], gradient[..., 3], by_exponent)

    def parameters(self, theta: np.ndarray, log_scale: np.ndarray) -> np.ndarray:
        e_inf, log_a, log_b, alpha = np.moveaxis(theta, -1, 0)
        return stack(e_inf, np.exp(log_a - alpha * log_scale[0]), np.exp(log_b - alpha * log_scale[1]), alpha)

    def coordinates(self, params: np.ndarray, log_scale: np.ndarray) -> np.ndarray:
        e_inf, a, b, alpha = np.moveaxis(params, -1, 0)
        return stack(e_inf, np.log(a) + alpha * log_scale[0], np.log(b) + alpha * log_scale[1], alpha)

    def bounds(self, log_x: np.ndarray, error: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        low = stack(0.0, VANISHED, VANISHED, STEEPEST)
        return low, stack(error.min(-1), np.inf, np.inf, FLATTEST)

    def starts(self, log_x: np.ndarray, error: np.ndarray) -> np.ndarray:
        """For each exponent the three terms by non-negative least squares on relative residuals."""
        from scipy.optimize import nnls

        found = []
        for alpha in EXPONENTS:
            terms = stack(1.0, np.exp(alpha * log_x[:, 0]), np.exp(alpha * log_x[:, 1]))
            e_inf, a, b = nnls(terms / error[:, None], np.ones(len(error)))[0]
            # a term of weight 0 would have no gradient
            a, b = max(a, 1e-2 * error.mean()), max(b, 1e-2 * error.mean())
            found.append((min(e_inf, 0.9 * error.min()), np.log(a), np.log(b), alpha))
        return np.array(found)

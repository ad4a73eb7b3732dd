"""Laws of model size and data together."""

from __future__ import annotations

from itertools import product

import numpy as np

from clipeval.scaling.laws.law import FLATTEST, STEEPEST, Law, append, columns, stack

EXPONENTS = (-0.12, -0.3, -0.6, -1.2)
R_STARS = (2.0, 15.0, 100.0)
R_STAR_BOUNDS = (0.05, 1e4)
VANISHED = -60.0
"""The logarithm of a term that does not matter any more."""


class JointND(Law):
    """E = e_inf + a * N**alpha_n + b * D**alpha_d, of inputs (N, D): parameters and samples (Hoffmann et al. 2022)."""

    name = "joint_nd"
    names: tuple[str, ...] = ("e_inf", "a", "alpha_n", "b", "alpha_d")
    inputs = 2

    def log_error(self, log_x: np.ndarray, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        e_inf, log_a, alpha_n, log_b, alpha_d = columns(theta)
        log_n, log_d = log_x[..., 0], log_x[..., 1]
        of_size, of_data = np.exp(log_a + alpha_n * log_n), np.exp(log_b + alpha_d * log_d)
        error = e_inf + of_size + of_data
        gradient = stack(1.0, of_size, of_size * log_n, of_data, of_data * log_d)
        return np.log(error), gradient / error[..., None]

    def parameters(self, theta: np.ndarray, log_scale: np.ndarray) -> np.ndarray:
        e_inf, log_a, alpha_n, log_b, alpha_d = np.moveaxis(theta, -1, 0)
        a, b = np.exp(log_a - alpha_n * log_scale[0]), np.exp(log_b - alpha_d * log_scale[1])
        return stack(e_inf, a, alpha_n, b, alpha_d)

    def coordinates(self, params: np.ndarray, log_scale: np.ndarray) -> np.ndarray:
        e_inf, a, alpha_n, b, alpha_d = np.moveaxis(params, -1, 0)
        log_a, log_b = np.log(a) + alpha_n * log_scale[0], np.log(b) + alpha_d * log_scale[1]
        return stack(e_inf, log_a, alpha_n, log_b, alpha_d)

    def bounds(self, log_x: np.ndarray, error: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        low = stack(0.0, VANISHED, STEEPEST, VANISHED, STEEPEST)
        return low, stack(error.min(-1), np.inf, FLATTEST, np.inf, FLATTEST)

    def starts(self, log_x: np.ndarray, error: np.ndarray) -> np.ndarray:
        """For each pair of exponents the three terms by non-negative least squares on relative residuals."""
        from scipy.optimize import nnls

        found = []
        for alpha_n, alpha_d in product(EXPONENTS, EXPONENTS):
            terms = stack(1.0, np.exp(alpha_n * log_x[:, 0]), np.exp(alpha_d * log_x[:, 1]))
            e_inf, a, b = nnls(terms / error[:, None], np.ones(len(error)))[0]
            # a term of weight 0 would have no gradient
            a, b = max(a, 1e-2 * error.mean()), max(b, 1e-2 * error.mean())
            found.append((min(e_inf, 0.9 * error.min()), np.log(a), alpha_n, np.log(b), alpha_d))
        return np.array(found)


class JointRepeats(Law):
    """E = e_inf + a * N**alpha_n + b * D_eff**alpha_d, of inputs (N, S, U): parameters, samples seen, unique samples.

    D_eff = U + U * r_star * (1 - exp(-(S / U - 1) / r_star)) counts what repeated samples are worth (Muennighoff et
    al. 2023, arXiv 2305.16264); D_eff = S where a sample is seen at most once.
    """

    name = "joint_repeats"
    names = (*JointND.names, "r_star")
    inputs = 3
    _joint = JointND()

    def log_error(self, log_x: np.ndarray, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        log_data, by_r_star = _effective(log_x[..., 1], log_x[..., 2], theta[..., 5, None])
        value, gradient = self._joint.log_error(np.stack([log_x[..., 0], log_data], axis=-1), theta[..., :5])
        # the gradient by ln b is the share of the data term, by which ln D_eff acts times alpha_d
        by_data = gradient[..., 3] * theta[..., 4, None]
        return value, np.concatenate([gradient, (by_data * by_r_star)[..., None]], axis=-1)

    def varying(self, log_x: np.ndarray) -> np.ndarray:
        """All models may share their unique samples."""
        return log_x[..., :2]

    def log_scale(self, log_x: np.ndarray) -> np.ndarray:
        """Samples seen and unique samples have the same unit."""
        log_n, log_s, _ = log_x.mean(0)
        return np.array([log_n, log_s, log_s])

    def parameters(self, theta: np.ndarray, log_scale: np.ndarray) -> np.ndarray:
        return np.concatenate([self._joint.parameters(theta[..., :5], log_scale), np.exp(theta[..., 5:])], axis=-1)

    def coordinates(self, params: np.ndarray, log_scale: np.ndarray) -> np.ndarray:
        return np.concatenate([self._joint.coordinates(params[..., :5], log_scale), np.log(params[..., 5:])], axis=-1)

    def bounds(self, log_x: np.ndarray, error: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        low, high = self._joint.bounds(log_x, error)
        return append(low, np.log(R_STAR_BOUNDS[0])), append(high, np.log(R_STAR_BOUNDS[1]))

    def starts(self, log_x: np.ndarray, error: np.ndarray) -> np.ndarray:
        found = []
        for log_r_star in np.log(R_STARS):
            log_data, _ = _effective(log_x[:, 1], log_x[:, 2], log_r_star)
            joint = self._joint.starts(np.stack([log_x[:, 0], log_data], axis=-1), error)
            found.append(np.insert(joint, 5, log_r_star, axis=1))
        return np.concatenate(found)


def _effective(log_seen: np.ndarray, log_unique: np.ndarray, log_r_star: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """ln D_eff, and its derivative by ln r_star."""
    r_star = np.exp(log_r_star)
    repeats = np.maximum(np.exp(log_seen - log_unique) - 1, 0.0)
    worth = -r_star * np.expm1(-repeats / r_star)
    by_r_star = (worth - repeats * np.exp(-repeats / r_star)) / (1 + worth)
    return np.minimum(log_seen, log_unique) + np.log1p(worth), by_r_star

"""The logistic link between the logarithm of scale and an accuracy that starts at a known chance level."""

from __future__ import annotations

import numpy as np

from clipeval.scaling.laws.law import STEEPEST, Law, columns, logistic, scale_at, stack


class Sigmoid(Law):
    """1 / E = 1 / (1 - chance) + 1 / (beta * x**alpha).

    With accuracy = chance + (1 - chance) * sigmoid(w ln x + b) this is the link of Ruan et al. 2024
    (arXiv 2405.10938): alpha = -w and beta = (1 - chance) * exp(-b), so that E = beta * x**alpha at large x.
    """

    name = "sigmoid"
    names = ("alpha", "beta")
    of_shares = True

    def __init__(self, chance: float = 0.0) -> None:
        """``chance`` is the accuracy of guessing, 1 / K for K equally likely classes."""
        self.log_ceiling = np.log1p(-chance)

    def log_error(self, log_x: np.ndarray, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        alpha, level = columns(theta)
        logit = level + alpha * log_x - self.log_ceiling
        untrained = logistic(-logit)
        return self.log_ceiling - np.logaddexp(0.0, -logit), stack(untrained * log_x, untrained)

    def parameters(self, theta: np.ndarray, log_scale: np.ndarray) -> np.ndarray:
        alpha, level = np.moveaxis(theta, -1, 0)
        return stack(alpha, np.exp(level - alpha * log_scale))

    def coordinates(self, params: np.ndarray, log_scale: np.ndarray) -> np.ndarray:
        alpha, beta = np.moveaxis(params, -1, 0)
        return stack(alpha, np.log(beta) + alpha * log_scale)

    def bounds(self, log_x: np.ndarray, error: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.array([STEEPEST, -np.inf]), np.array([-STEEPEST, np.inf])

    def starts(self, log_x: np.ndarray, error: np.ndarray) -> np.ndarray:
        ceiling = np.exp(self.log_ceiling)
        below = np.minimum(error, 0.999 * ceiling)
        logit = np.log(below / (ceiling - below)) + self.log_ceiling
        slope = np.clip(np.cov(log_x, logit)[0, 1] / np.var(log_x, ddof=1), STEEPEST, -STEEPEST)
        return np.array([(slope * part, logit.mean() - slope * part * log_x.mean()) for part in (1.0, 0.5)])

    def doubt(self, error: np.ndarray) -> str:
        ceiling = float(np.exp(self.log_ceiling))
        above = int(np.count_nonzero(error > ceiling * (1 + 1e-9)))
        return f"{above} of {len(error)} errors are above {ceiling:.4g}, that of guessing, as no sigmoid is" * (
            above > 0
        )

    def inverse(self, error: np.ndarray, params: np.ndarray) -> np.ndarray:
        alpha, beta = columns(params)
        below = 1 / error - np.exp(-self.log_ceiling)
        return scale_at(1 / np.where(below > 0, below, np.nan) / beta, alpha)

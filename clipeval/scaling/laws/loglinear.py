"""The power law, in one scale or in several."""

from __future__ import annotations

import numpy as np

from clipeval.scaling.laws.law import Law, scale_at, vary
from clipeval.scaling.minimise import Data, Loss
from clipeval.scaling.quantile import quantile_line


class LogLinear(Law):
    """E = beta * x_1**alpha_1 * ... * x_m**alpha_m, a linear law between logarithms."""

    name = "loglinear"

    def __init__(self, columns: tuple[str, ...]) -> None:
        """``columns`` names the inputs; parameter ``alpha_<column>`` is the exponent of one."""
        self.inputs = len(columns)
        self.names = (*(f"alpha_{column}" for column in columns), "beta")

    def log_error(self, log_x: np.ndarray, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        features = np.concatenate([self.varying(log_x), np.ones((*log_x.shape[:2], 1))], axis=-1)
        return (features @ theta[..., None])[..., 0], features

    def parameters(self, theta: np.ndarray, log_scale: np.ndarray) -> np.ndarray:
        alphas, level = theta[..., :-1], theta[..., -1:]
        return np.concatenate([alphas, np.exp(level - (alphas * log_scale).sum(-1, keepdims=True))], axis=-1)

    def coordinates(self, params: np.ndarray, log_scale: np.ndarray) -> np.ndarray:
        alphas, beta = params[..., :-1], params[..., -1:]
        return np.concatenate([alphas, np.log(beta) + (alphas * log_scale).sum(-1, keepdims=True)], axis=-1)

    def bounds(self, log_x: np.ndarray, error: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        free = np.full(self.inputs + 1, np.inf)
        return -free, free

    def starts(self, log_x: np.ndarray, error: np.ndarray) -> np.ndarray:
        line = self.least_squares(log_x[None], np.log(error)[None], np.ones((1, len(error))))
        flat = np.append(np.zeros(self.inputs), np.log(error).mean())
        return np.concatenate([line, flat[None]])

    def closed_form(self, data: Data, loss: Loss, begin: np.ndarray | None = None) -> np.ndarray | None:
        if loss == Loss():
            return self.least_squares(data.log_x, data.log_error, data.weights)
        return None

    def least_squares(self, log_x: np.ndarray, log_error: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Weighted least squares ``[B, k]`` of ``B`` problems; NaN where the points do not determine the exponents."""
        features = self.varying(log_x)
        share = (weights / weights.sum(-1, keepdims=True))[..., None]
        x_mean, y_mean = (share * features).sum(1), (share[..., 0] * log_error).sum(1)
        centred = features - x_mean[:, None, :]
        gram = np.swapaxes(centred, 1, 2) @ (share * centred)
        moment = (centred * share * (log_error - y_mean[:, None])[..., None]).sum(1)
        solvable = vary(features, weights)
        alphas = np.full(moment.shape, np.nan)
        alphas[solvable] = np.linalg.solve(gram[solvable], moment[solvable][..., None])[..., 0]
        return np.concatenate([alphas, (y_mean - (alphas * x_mean).sum(-1))[:, None]], axis=-1)


class Power(LogLinear):
    """E = beta * x**alpha."""

    name = "power"

    def __init__(self) -> None:
        super().__init__(("x",))
        self.names = ("alpha", "beta")

    def closed_form(self, data: Data, loss: Loss, begin: np.ndarray | None = None) -> np.ndarray | None:
        if loss.tau != 0.5:
            near = self.least_squares(data.log_x, data.log_error, data.weights) if begin is None else begin
            return np.stack(quantile_line(data.log_x, data.log_error, loss.tau, near[:, 0]), axis=-1)
        return super().closed_form(data, loss)

    def least_squares(self, log_x: np.ndarray, log_error: np.ndarray, weights: np.ndarray) -> np.ndarray:
        share = weights / weights.sum(-1, keepdims=True)
        x_mean, y_mean = np.einsum("bn,bn->b", share, log_x), np.einsum("bn,bn->b", share, log_error)
        centred = log_x - x_mean[:, None]
        pull = share * centred
        with np.errstate(divide="ignore", invalid="ignore"):
            alpha = np.einsum("bn,bn->b", pull, log_error - y_mean[:, None]) / np.einsum("bn,bn->b", pull, centred)
        alpha = np.where(vary(log_x[..., None], weights), alpha, np.nan)
        return np.stack([alpha, y_mean - alpha * x_mean], axis=-1)

    def inverse(self, error: np.ndarray, params: np.ndarray) -> np.ndarray:
        alpha, beta = params[..., 0, None], params[..., 1, None]
        return scale_at(error / beta, alpha)

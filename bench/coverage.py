"""Bias of the frontiers, and how often 95 % intervals of scaling laws hold the truth, on simulated data sets."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from clipeval.scaling.frontier import FRONTIERS, QUANTILE
from clipeval.scaling.laws import LAWS
from clipeval.scaling.minimise import HUBER, LEAST_SQUARES, Loss
from clipeval.scaling.problem import Problem
from clipeval.scaling.uncertainty.methods import uncertainty

TRUE_ALPHA, TRUE_BETA = -0.1114, 5.9
DECADE = np.log(10)
# compute of the 29 LAION models of Cherti et al. 2023, in GMACs
COMPUTE = np.array([
    1.808554e10, 1.894410e10, 1.894410e10, 5.027293e10, 5.265947e10, 5.265947e10, 9.472049e10, 9.620000e10,
    9.779840e10, 2.144115e11, 2.245900e11, 2.245900e11, 2.531976e11, 2.533773e11, 2.569679e11, 2.681223e11,
    2.681223e11, 2.682342e11, 7.038210e11, 7.038210e11, 7.043205e11, 1.122944e12, 1.144005e12, 1.159440e12,
    2.807360e12, 3.001760e12, 3.003891e12, 3.549397e12, 6.631509e12,
])  # fmt: skip
Noise = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]
NOISES: dict[str, Noise] = {
    "exponential excess, 0.05 dex": lambda rng, shape: rng.exponential(0.05 * DECADE, shape),
    "normal, 0.02 dex": lambda rng, shape: rng.normal(0, 0.02 * DECADE, shape),
    "half-normal excess, 0.06 dex": lambda rng, shape: np.abs(rng.normal(0, 0.06 * DECADE, shape)),
}
QUANTILES = (-np.log(1 - QUANTILE) * 0.05, -1.2815516 * 0.02, 0.1256613 * 0.06)
"""Where a tenth of each noise lies, in dex."""


def biases(runs: int = 8000) -> None:
    """Bias and standard deviation of the exponent of a power law fitted to each frontier."""
    rng = np.random.default_rng(0)
    power, log_x = LAWS["power"], np.log(COMPUTE)
    for name, noise in NOISES.items():
        errors = np.log(TRUE_BETA) + TRUE_ALPHA * log_x + noise(rng, (runs, len(log_x)))
        for frontier in FRONTIERS.values():
            problem = Problem(power, COMPUTE, np.exp(errors[0]), frontier.name)
            alphas = problem.refit(np.broadcast_to(log_x, errors.shape), errors)[:, 0]
            print(f"{name:30} {frontier.name:12} bias {alphas.mean() - TRUE_ALPHA:+.4f}  sd {alphas.std():.4f}")


def power_law(frontier: str, n: int, loss: Loss = LEAST_SQUARES, runs: int = 1000) -> None:
    """Coverage of the exponent, and of the line at the least, the middle and 10 times the largest compute."""
    power = LAWS["power"]
    x = COMPUTE if n == len(COMPUTE) else np.sort(np.random.default_rng(5).choice(COMPUTE, n, replace=False))
    at = np.array([x.min(), np.exp(np.log(x).mean()), 10 * x.max()])
    for (name, noise), quantile in zip(NOISES.items(), QUANTILES, strict=True):
        rng = np.random.default_rng(1)
        typical = noise(rng, (100_000,))
        of_all = typical.mean() if loss == LEAST_SQUARES else np.median(typical)
        level = quantile * DECADE if frontier == "quantile" else of_all
        truth = TRUE_BETA * at**TRUE_ALPHA * np.exp(level)
        alpha, unbounded, line = [], [], []
        for run in range(runs):
            error = TRUE_BETA * x**TRUE_ALPHA * np.exp(noise(rng, x.shape))
            found = uncertainty(Problem(power, x, error, frontier, loss, draws=1000, seed=run + 10**6))
            interval = found.intervals["alpha"]
            alpha.append(interval.low <= TRUE_ALPHA <= interval.high)
            unbounded.append(not np.isfinite(interval.high - interval.low))
            low, high = np.nanquantile(power.error(at, found.draws), (0.025, 0.975), axis=0)
            line.append((low <= truth) & (truth <= high))
        lines = "none" if found.reason else " ".join(f"{share:.3f}" for share in np.mean(line, axis=0))
        label = f"{frontier}{'' if loss == LEAST_SQUARES else ', Huber'}"
        print(
            f"{label:16} n={n:2} {name:30} alpha {np.mean(alpha):.3f} (unbounded {np.mean(unbounded):.2f})"
            f"  line {lines}  {interval.method}", flush=True,
        )  # fmt: skip


def curve(name: str, params: tuple[float, ...], sigma: float, loss: Loss = LEAST_SQUARES, runs: int = 1000) -> None:
    """Coverage of every parameter of a law on 24 scales from 1e8 to 1e13 with normal scatter of ln E."""
    law, x, rng, truth = LAWS[name], np.logspace(8, 13, 24), np.random.default_rng(2), np.array(params)
    inside = []
    for run in range(runs):
        error = law.error(x, truth) * np.exp(rng.normal(0, sigma, x.shape))
        found = uncertainty(Problem(law, x, error, loss=loss, draws=400, seed=run))
        intervals = [found.intervals[key] for key in law.names]
        inside.append([i.low <= value <= i.high for i, value in zip(intervals, truth, strict=True)])
    shares = "  ".join(f"{key} {share:.3f}" for key, share in zip(law.names, np.mean(inside, axis=0), strict=True))
    print(
        f"{name:13}{'' if loss == LEAST_SQUARES else ' Huber'} sigma {sigma}: {shares}  {intervals[0].method}",
        flush=True,
    )


def main() -> None:
    """Print all tables; about 20 minutes on one core."""
    biases()
    for n in (29, 11):
        for frontier in ("none", "quantile", "cherti2023", "pareto", "hull"):
            power_law(frontier, n)
        power_law("none", n, HUBER)
    curve("power_floor", (-0.25, 60.0, 0.12), 0.01)
    curve("shifted", (-0.3, 500.0, 1e9), 0.01)
    curve("sigmoid", (-0.3, 500.0), 0.01)
    curve("power_floor", (-0.25, 60.0, 0.12), 0.01, loss=HUBER)
    curve("shifted_floor", (-0.3, 400.0, 1e9, 0.1), 0.01)
    curve("m4", (-0.25, 61.25, 0.1, 0.95, 0.8), 0.01)
    curve("broken", (-0.3, 200.0, -0.05, 3e10, 0.5, 0.05), 0.01)


if __name__ == "__main__":
    main()

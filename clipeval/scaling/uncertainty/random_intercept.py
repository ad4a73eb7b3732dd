"""A level of its own for every group, drawn from a common distribution: for sources or architectures, not for runs.

Where members of a group are all better or worse by the same factor, this knows more than the sandwich of
``clusters.py``: in simulated tables its intervals hold 91 to 96 % at 40 to 60 % of the width. Where the errors of a
group are related in another way, as those of consecutive checkpoints, they hold 53 to 79 %. The variances are those of
restricted maximum likelihood (Patterson and Thompson 1971, Biometrika 58:545), and intervals are Student's with
Satterthwaite's degrees of freedom (Giesbrecht and Burns 1985, Biometrics 41:477).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from clipeval.errors import MeasureError
from clipeval.scaling.uncertainty.clusters import FEWEST_GROUPS, grouped

RATIOS = (1e-6, 1e6)
"""Variance of levels over that of points, between which the likelihood is searched."""


@dataclass(frozen=True)
class Level:
    """What a group is off the common line by, in ln E, and the standard deviation of that (best linear prediction)."""

    value: float
    sd: float


@dataclass(frozen=True)
class RandomIntercept:
    """Linear combinations of the coefficients, ``estimate``, ``se`` and ``df`` ``[m]``, and the level of each group.

    ``icc`` is the share of the residual variance that levels are.
    """

    estimate: np.ndarray
    se: np.ndarray
    df: np.ndarray
    icc: float
    levels: dict[str, Level]

    def interval(self) -> tuple[np.ndarray, np.ndarray]:
        """The 95 % interval of each combination: two arrays ``[m]``."""
        half = stdtrit(self.df, 0.975) * self.se
        return self.estimate - half, self.estimate + half


def random_intercept(
    design: np.ndarray, log_error: np.ndarray, groups: Sequence[object], contrasts: np.ndarray | None = None
) -> RandomIntercept:
    """The coefficients of ``log_error`` ``[n]`` on ``design`` ``[n, k]`` with a random level of ``groups`` ``[n]``.

    ``contrasts`` ``[m, k]`` are the combinations that are asked for, by default each coefficient by itself. Raises
    MeasureError for fewer than 3 groups, for groups of one point only, and for fewer points than needed.
    """
    group_of, count = grouped(groups, len(log_error))
    n, k = design.shape
    if count == n or n - k < FEWEST_GROUPS or np.linalg.matrix_rank(design) < k:
        raise MeasureError(
            f"{n} points in {count} groups do not tell levels of groups from the scatter of points about {k} "
            "coefficients. Add points, or name a coarser grouping."
        )
    model = _Mixed(design, np.asarray(log_error, dtype=float), np.eye(count)[group_of])
    wanted = np.eye(k) if contrasts is None else contrasts
    level, sd = model.levels()
    labels = {int(j): str(group) for j, group in zip(group_of, groups, strict=True)}
    return RandomIntercept(
        estimate=wanted @ model.coefficients,
        se=np.sqrt(model.variance(wanted)),
        df=np.array([model.freedom(row) for row in wanted]),
        icc=model.ratio / (1 + model.ratio),
        levels={labels[j]: Level(float(level[j]), float(sd[j])) for j in range(count)},
    )


class _Mixed:
    """The fitted model: ``ratio`` is the variance of levels over that of points, ``scatter`` the latter."""

    def __init__(self, design: np.ndarray, target: np.ndarray, member: np.ndarray) -> None:
        from scipy.optimize import minimize_scalar

        self.design, self.target, self.member = design, target, member
        self.alike = member @ member.T
        found = minimize_scalar(
            lambda log_ratio: self._deviance(np.exp(log_ratio)), bounds=np.log(RATIOS), method="bounded",
            options={"xatol": 1e-8},
        )  # fmt: skip
        self.ratio = float(np.exp(found.x)) if found.fun < self._deviance(0.0) else 0.0
        _, self.inverse, self.bread, self.coefficients, self.scatter = self._at(self.ratio)

    def _at(self, ratio: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, float]:
        """The covariance in units of the scatter, its inverse, (X' V**-1 X)**-1, coefficients and scatter."""
        covariance = np.eye(len(self.target)) + ratio * self.alike
        inverse = np.linalg.inv(covariance)
        bread = np.linalg.inv(self.design.T @ inverse @ self.design)
        coefficients = bread @ (self.design.T @ inverse @ self.target)
        rest = self.target - self.design @ coefficients
        freedom = self.design.shape[0] - self.design.shape[1]
        return covariance, inverse, bread, coefficients, float(rest @ inverse @ rest / freedom)

    def _deviance(self, ratio: float) -> float:
        """-2 times the restricted log likelihood, the scatter at its best, up to a constant."""
        covariance, _, bread, _, scatter = self._at(ratio)
        freedom = self.design.shape[0] - self.design.shape[1]
        return float(
            np.linalg.slogdet(covariance)[1] - np.linalg.slogdet(bread)[1] + freedom * np.log(max(scatter, 1e-300))
        )

    def variance(self, contrasts: np.ndarray) -> np.ndarray:
        """Of combinations of the coefficients ``[m]``."""
        return self.scatter * np.einsum("mi,ij,mj->m", contrasts, self.bread, contrasts)

    def freedom(self, contrast: np.ndarray) -> float:
        """2 f**2 / var f, f the variance of a combination and its own variance by the expected information."""
        n, k = self.design.shape
        if self.ratio == 0:
            return float(n - k)
        weight = self.inverse / self.scatter
        projection = weight - weight @ self.design @ (self.bread * self.scatter) @ self.design.T @ weight
        parts = (np.eye(n), self.alike)
        information = np.array([[np.trace(projection @ a @ projection @ b) / 2 for b in parts] for a in parts])
        influence = weight @ self.design @ (self.bread @ contrast) * self.scatter
        slope = np.array([influence @ part @ influence for part in parts])
        f = float(self.variance(contrast[None])[0])
        return float(2 * f**2 / (slope @ np.linalg.solve(information, slope)))

    def levels(self) -> tuple[np.ndarray, np.ndarray]:
        """Best linear unbiased predictions of the levels ``[groups]`` and their standard deviations."""
        reach = self.ratio * self.member.T @ self.inverse
        off = self.target - self.design @ self.coefficients
        seen = np.eye(len(off)) - self.design @ self.bread @ self.design.T @ self.inverse
        covariance = self.ratio * np.eye(self.member.shape[1]) - reach @ seen @ self.member * self.ratio
        return reach @ off, np.sqrt(np.maximum(self.scatter * np.diag(covariance), 0.0))

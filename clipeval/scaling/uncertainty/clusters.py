"""Intervals for points that come in clusters: checkpoints of one run, models of one architecture or one source.

Points of a cluster err together, so that they say less than as many independent ones. The covariance of the estimates
is the sandwich with the bias-reducing adjustment of Bell and McCaffrey (2002, Survey Methodology 28:169), CR2, and each
interval is Student's with degrees of freedom of its own, by Satterthwaite's approximation (Imbens and Kolesar 2016,
Rev. Econ. Stat. 98:701; Pustejovsky and Tipton 2018, J. Bus. Econ. Stat. 36:672). A curve is taken as linear near its
estimate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import fdtrc, stdtr, stdtrit

from clipeval.errors import MeasureError
from clipeval.scaling.problem import Problem
from clipeval.scaling.uncertainty.interval import Interval

FEWEST_GROUPS = 3
NO_ROOM = 1e-9
"""An eigenvalue of I - H below which the fit leaves a group no scatter in that direction."""
_NAN = float("nan")


class ClusterRobust:
    """Standard errors of linear combinations of least-squares estimates, whatever the errors of a group share.

    Made of the design alone, for any number of residual vectors: ``design`` ``[n, k]`` (or a Jacobian), ``groups``
    ``[n]`` labels, ``contrasts`` ``[m, k]`` the combinations, by default each estimate by itself. ``df`` ``[m]`` are
    Satterthwaite's degrees of freedom, exact where errors are in truth independent and equally large. Raises
    MeasureError for fewer than 3 groups and for a design that does not determine its estimates.
    """

    def __init__(self, design: np.ndarray, groups: Sequence[object], contrasts: np.ndarray | None = None) -> None:
        group_of, self.groups = grouped(groups, len(design))
        size = np.linalg.norm(design, axis=0)
        if np.linalg.matrix_rank(design / np.where(size > 0, size, 1.0)) < design.shape[1]:
            raise MeasureError("the points do not determine all parameters, so that these have no standard errors.")
        basis, triangle = np.linalg.qr(design)
        wanted = np.eye(design.shape[1]) if contrasts is None else contrasts
        # the weights of the errors of each point in each combination
        influence = basis @ np.linalg.solve(triangle.T, wanted.T)
        self._members = [np.flatnonzero(group_of == group) for group in range(self.groups)]
        self._adjusted = np.empty_like(influence)
        for rows in self._members:
            self._adjusted[rows] = _inverse_root(np.eye(len(rows)) - basis[rows] @ basis[rows].T) @ influence[rows]
        self.df = np.array([self._freedom(basis, self._adjusted[:, j]) for j in range(len(wanted))])

    def covariance(self, residual: np.ndarray) -> np.ndarray:
        """``[..., m, m]`` of the combinations, for ``residual`` ``[..., n]``."""
        scores = np.stack([residual[..., rows] @ self._adjusted[rows] for rows in self._members], axis=-1)
        return scores @ np.swapaxes(scores, -1, -2)

    def se(self, residual: np.ndarray) -> np.ndarray:
        """Standard errors ``[..., m]`` of the combinations, for ``residual`` ``[..., n]``."""
        scores = np.stack([residual[..., rows] @ self._adjusted[rows] for rows in self._members], axis=-1)
        return np.sqrt((scores**2).sum(-1))

    def _freedom(self, basis: np.ndarray, adjusted: np.ndarray) -> float:
        """(tr L)**2 / tr L**2, with L the products of the vectors that give each group's score from the errors."""
        parts = np.zeros((len(adjusted), self.groups))
        for group, rows in enumerate(self._members):
            parts[rows, group] = adjusted[rows]
        parts -= basis @ (basis.T @ parts)
        products = parts.T @ parts
        return float(np.trace(products) ** 2 / (products**2).sum())


@dataclass(frozen=True)
class Clustered:
    """How well the parameters of a law are known from clusters of points.

    ``intervals`` are of 95 % by name; ``alpha_se`` and ``alpha_df`` are NaN for a law without an ``alpha``.
    ``covariance`` ``[k, k]`` is that of the coordinates for inputs that are not scaled (0 for one held by a bound).
    """

    intervals: dict[str, Interval]
    covariance: np.ndarray
    groups: int
    alpha_se: float = _NAN
    alpha_df: float = _NAN


def clustered(problem: Problem, groups: Sequence[object]) -> Clustered:
    """Intervals of the parameters of a law fitted by least squares to points in ``groups`` (``[n]`` labels).

    A parameter at its bound has no interval. Raises MeasureError for fewer than 3 groups.
    """
    law, line = problem.law, _Linear(problem)
    robust = ClusterRobust(line.design, groups)
    se, df = np.full(len(law.names), _NAN), np.full(len(law.names), _NAN)
    se[line.free], df[line.free] = robust.se(line.residual), robust.df
    half = stdtrit(df, 0.975) * se
    with np.errstate(over="ignore"):
        ends = np.clip(np.stack([line.theta - half, line.theta + half]), line.low, line.high)
        ends = law.parameters(ends, problem.unscaled)
    intervals = {
        name: Interval(float(ends[0, j]), float(ends[1, j]), f"CR2 by {robust.groups} groups, {df[j]:.1f} df")
        if line.free[j]
        else Interval(_NAN, _NAN, "none", "it lies at a bound of the law")
        for j, name in enumerate(law.names)
    }
    covariance = np.zeros((len(se), len(se)))
    covariance[np.ix_(line.free, line.free)] = robust.covariance(line.residual)
    j = law.names.index("alpha") if "alpha" in law.names else None
    more = (_NAN, _NAN) if j is None else (float(se[j]), float(df[j]))
    return Clustered(intervals, covariance, robust.groups, *more)


def widest(found: Sequence[Clustered]) -> dict[str, Interval]:
    """Of groupings in several ways, as by architecture and by source, each parameter's widest interval.

    One that a grouping does not give stays without: the other may be too narrow.
    """
    return {
        name: max((one.intervals[name] for one in found), key=lambda end: np.nan_to_num(end.high - end.low, nan=np.inf))
        for name in found[0].intervals
    }


def combination(problem: Problem, groups: Sequence[object], contrast: np.ndarray) -> tuple[float, float]:
    """Standard error and degrees of freedom of a linear combination ``[k]`` of the coordinates of a law.

    Refusals are those of ``clustered``.
    """
    line = _Linear(problem)
    robust = ClusterRobust(line.design, groups, contrast[None, line.free])
    return float(robust.se(line.residual)[0]), float(robust.df[0])


def clustered_band(problem: Problem, groups: Sequence[object], at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The 95 % interval ``[m]``, ``[m]`` of the law's error at the scales ``at`` (``[m]`` or ``[m, inputs]``).

    Each point of the band has degrees of freedom of its own. Refusals are those of ``clustered``.
    """
    line = _Linear(problem)
    value, gradient = problem.law.log_error(np.log(at)[None], line.theta[None])
    robust = ClusterRobust(line.design, groups, gradient[0][:, line.free])
    half = stdtrit(robust.df, 0.975) * robust.se(line.residual)
    return np.exp(value[0] - half), np.exp(value[0] + half)


@dataclass(frozen=True)
class Difference:
    """Of two exponents, the first minus the second: its 95 % interval, and the p of the test that it is 0."""

    difference: float
    se: float
    df: float
    low: float
    high: float
    p: float


@dataclass(frozen=True)
class Side:
    """One of two sources that are compared: its law and points, and the groups they come in."""

    problem: Problem
    groups: Sequence[object]


def exponents_differ(first: Side, second: Side, name: str = "alpha") -> Difference:
    """A test of equal exponents for points in groups; a label in both sides is one group, whose errors may be shared.

    Both laws are taken as one model whose two parts have residuals of their own size. Raises MeasureError for fewer
    than 3 groups on either side, and where an exponent lies at a bound.
    """
    designs, residuals, contrasts = [], [], []
    for side, sign in ((first, 1.0), (second, -1.0)):
        law, line = side.problem.law, _Linear(side.problem)
        grouped(side.groups, len(side.problem.error))
        j = law.names.index(name)
        if not line.free[j]:
            raise MeasureError(f"{name} of law '{law.name}' lies at a bound: exponents cannot be compared.")
        spread = float(np.sqrt((line.residual**2).sum() / max(len(line.residual) - line.free.sum(), 1))) or 1.0
        designs.append(line.design / spread)
        residuals.append(line.residual / spread)
        contrasts.append(sign * np.eye(len(line.free))[j, line.free])
    n, k = designs[0].shape
    design = np.zeros((n + len(designs[1]), k + designs[1].shape[1]))
    design[:n, :k], design[n:, k:] = designs
    robust = ClusterRobust(design, [*first.groups, *second.groups], np.concatenate(contrasts)[None])
    se, df = float(robust.se(np.concatenate(residuals))[0]), float(robust.df[0])
    found = first.problem.estimate[name] - second.problem.estimate[name]
    half = float(stdtrit(df, 0.975)) * se
    p = float(2 * stdtr(df, -abs(found) / se)) if se > 0 else float(found == 0)
    return Difference(found, se, df, found - half, found + half, p)


@dataclass(frozen=True)
class Correlation:
    """The share of the residual variance that the members of a group have in common, and the p of none."""

    icc: float
    p: float
    groups: int

    @property
    def matters(self) -> bool:
        """Whether a cluster-robust interval should be offered."""
        return self.icc > 0.3 and self.p < 0.01


def intraclass_correlation(design: np.ndarray, log_error: np.ndarray, groups: Sequence[object]) -> Correlation:
    """Of the residuals of ``log_error`` ``[n]`` on ``design`` ``[n, k]``, by ``groups`` ``[n]``.

    Henderson's third method for the two variances, and the F test of a level of its own for every group, which is
    exact for normal errors. NaN where the groups leave nothing to compare: one group, or as many as points.
    """
    labels, group_of = np.unique(np.array([str(group) for group in groups]), return_inverse=True)
    levels = np.eye(len(labels))[group_of]
    n, k = design.shape
    plain, left = _residuals(design, log_error), _residuals(design, levels)
    more = int(np.linalg.matrix_rank(left, tol=1e-8))
    freedom = n - k - more
    if more == 0 or freedom <= 0:
        return Correlation(_NAN, _NAN, len(labels))
    within = _residuals(np.concatenate([design, levels], axis=1), log_error)
    rss, rss_within = float((plain**2).sum()), float((within**2).sum())
    of_point = rss_within / freedom
    of_group = max(0.0, (rss - (n - k) * of_point) / float((left**2).sum()))
    if not of_point + of_group > 0:
        return Correlation(_NAN, _NAN, len(labels))
    with np.errstate(divide="ignore"):
        ratio = float(np.divide((rss - rss_within) / more, of_point))
    return Correlation(of_group / (of_group + of_point), float(fdtrc(more, freedom, ratio)), len(labels))


def worth_clustering(problem: Problem, columns: Mapping[str, Sequence[object]]) -> dict[str, Correlation]:
    """Of ``columns`` of labels ``[n]``, such as source, architecture and run, those whose points err together.

    The strongest first. Intervals that take points as independent should not be believed beside them.
    """
    line = _Linear(problem)
    found = {name: intraclass_correlation(line.design, line.residual, labels) for name, labels in columns.items()}
    order = sorted(found, key=lambda name: -np.nan_to_num(found[name].icc))
    return {name: found[name] for name in order if found[name].matters}


def grouped(groups: Sequence[object], n: int, fewest: int = FEWEST_GROUPS) -> tuple[np.ndarray, int]:
    """Group numbers ``[n]`` and how many groups there are. Raises MeasureError for fewer than ``fewest`` groups."""
    labels, group_of = np.unique(np.array([str(group) for group in groups]), return_inverse=True)
    if len(group_of) != n:
        raise MeasureError(f"{len(group_of)} group labels for {n} points: give one per point.")
    if len(labels) < fewest:
        what = "a cluster-robust interval" if fewest == FEWEST_GROUPS else "an interval of a frontier by clusters"
        raise MeasureError(
            f"points in {len(labels)} group(s) ({', '.join(labels)}): {what} needs at least "
            f"{fewest}, as groups that err together are what it counts. Name a finer grouping, or add groups."
        )
    return group_of, len(labels)


class _Linear:
    """A law near its estimate, in the coordinates that no bound holds: design ``[n, free]`` and residuals ``[n]``."""

    def __init__(self, problem: Problem) -> None:
        with np.errstate(divide="ignore"):
            self.theta = problem.best
        self.low, self.high = problem.law.bounds(problem.log_x, problem.error)
        self.free = np.isfinite(self.theta) & (self.theta > self.low) & (self.theta < self.high)
        value, gradient = problem.law.log_error(problem.log_x[None], self.theta[None])
        root = np.sqrt(problem.weight)
        self.design = gradient[0][:, self.free] * root[:, None]
        self.residual = (problem.log_error - value[0]) * root


def _inverse_root(matrix: np.ndarray) -> np.ndarray:
    """The symmetric pseudo-inverse of the square root."""
    values, vectors = np.linalg.eigh(matrix)
    kept = values > NO_ROOM
    return (vectors[:, kept] / np.sqrt(values[kept])) @ vectors[:, kept].T


def _residuals(design: np.ndarray, target: np.ndarray) -> np.ndarray:
    return target - design @ np.linalg.lstsq(design, target, rcond=None)[0]

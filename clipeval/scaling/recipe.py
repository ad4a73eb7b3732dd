"""One law: its parameters, how well they are known, how it does on checkpoints it has not seen, and a verdict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from zlib import crc32

import numpy as np

from clipeval import choices
from clipeval.errors import MeasureError, UsageError
from clipeval.results.columns import COMPUTE, numbers, refuse
from clipeval.scaling import validation
from clipeval.scaling.estimate import ESTIMATORS, LEAST_SQUARES, WEIGHTED
from clipeval.scaling.fitted import NAN, Fit
from clipeval.scaling.frontier import DEFAULT_FRONTIER, on_frontier
from clipeval.scaling.laws import LAWS, Law, LogLinear, Sigmoid
from clipeval.scaling.minimise import HUBER
from clipeval.scaling.points import Checkpoints
from clipeval.scaling.problem import Problem, noise_weights
from clipeval.scaling.uncertainty.clusters import FEWEST_GROUPS, worth_clustering
from clipeval.scaling.uncertainty.methods import Uncertainty, uncertainty
from clipeval.scaling.uncertainty.random_intercept import random_intercept

CLUSTERS = ("run", "source", "arch")
"""Columns of which points of the same value may err together."""


@dataclass(frozen=True)
class Recipe:
    """How laws are fitted. ``columns`` are the scales; ``frontier`` None is the default one; ``holdout`` is a value of
    the first scale, or None; ``bootstrap`` is the number of draws; ``estimator`` is one of ``ESTIMATORS``;
    ``chance`` is the accuracy of guessing by data set, 0 where none is given; ``cluster`` is the column of which points
    of the same value err together."""

    law: str
    columns: tuple[str, ...]
    frontier: str | None
    bootstrap: int
    seed: int
    holdout: float | None
    estimator: str = LEAST_SQUARES
    chance: Mapping[str, float] = field(default_factory=dict)
    cluster: str | None = None

    def __post_init__(self) -> None:
        """Raises UsageError for a law, frontier or number that does not exist or fit."""
        self.law_of("")
        if self.frontier is not None:
            choices.require("--frontier", self.frontier, choices.Frontier)
        choices.require("--estimator", self.estimator, choices.Estimator)
        if self.estimator != LEAST_SQUARES and self.frontier not in (None, "none"):
            raise UsageError(f"--frontier {self.frontier} does not go with --estimator {self.estimator}. Use none.")
        if self.cluster is not None and ESTIMATORS[self.estimator] == HUBER:
            raise UsageError(
                f"--cluster {self.cluster} goes with least squares through all points, or with a frontier. Leave out "
                "--estimator huber."
            )
        if len(self.columns) > 1 and self.frontier not in (None, "none"):
            raise UsageError(f"--frontier {self.frontier} needs one scale, --x names {len(self.columns)}. Use none.")
        if self.bootstrap < 100:
            raise UsageError(f"--bootstrap {self.bootstrap}: a 95 % interval needs at least 100 draws; 2000 is usual.")
        if self.holdout is not None and not self.holdout > 0:
            raise UsageError(f"--holdout {self.holdout}: must be a positive value of {self.columns[0]}.")

    def law_of(self, dataset: str) -> Law:
        """The law for a data set: of several scales for several columns, and with the data set's chance level."""
        if self.law in ("power", "loglinear") and len(self.columns) > 1:
            return LogLinear(self.columns)
        choices.require("--law", self.law, choices.Law)
        if self.law == "loglinear":
            raise UsageError("--law loglinear is of several scales: name them: --x gmacs,samples_seen.")
        law = LAWS[self.law]
        if law.inputs != len(self.columns):
            raise UsageError(
                f"--law {self.law} has {law.inputs} scales, --x names {len(self.columns)}: {','.join(self.columns)}."
            )
        return Sigmoid(self.chance.get(dataset, 0.0)) if isinstance(law, Sigmoid) else law

    @property
    def frontier_name(self) -> str:
        """The frontier, by default that of a power law fitted by least squares; other laws have none."""
        plain = self.law == "power" and len(self.columns) == 1 and self.estimator == LEAST_SQUARES
        plain = plain and self.cluster is None
        return self.frontier or (DEFAULT_FRONTIER if plain else "none")

    def problem(self, points: Checkpoints) -> Problem:
        """How the law is fitted to these checkpoints, yet without weights. Every source has a seed of its own, so that
        the draws of two are independent."""
        law, loss = self.law_of(points.cell[1]), ESTIMATORS[self.estimator]
        tolerance, seed = _tolerance(points, self.columns), crc32(f"{self.seed} {points.source}".encode())
        groups = points.table[self.cluster].to_numpy(object) if self.cluster else None
        draws = self.bootstrap
        return Problem(
            law,
            points.x,
            points.error,
            self.frontier_name,
            loss,
            None,
            tolerance,
            draws=draws,
            seed=seed,
            groups=groups,
        )


def fit_one(points: Checkpoints, recipe: Recipe) -> Fit:
    """Fit the law of a recipe to one source; a law that cannot be fitted has no estimate and says why.

    Raises MeasureError naming a row of unknown n where evaluation noise is asked for.
    """
    problem = recipe.problem(points)
    if points.loss and (problem.law.of_shares or recipe.estimator == WEIGHTED):
        what = f"law '{problem.law.name}'" if problem.law.of_shares else f"--estimator {WEIGHTED}"
        return Fit.without_law(points, problem, f"{what} is of shares between 0 and 1, not of a loss. Choose another.")
    if recipe.cluster:
        refuse(
            points.table, points.table[recipe.cluster].isna().to_numpy(bool), f"--cluster {recipe.cluster}: no value"
        )
    if recipe.estimator == WEIGHTED:
        refuse(points.table, ~(points.samples > 0), f"--estimator {WEIGHTED} needs n, the samples behind each value")
    try:
        problem = _weighted(problem, points, recipe)
        fit = fit_problem(points, problem)
    except (MeasureError, np.linalg.LinAlgError) as refusal:
        return Fit.without_law(points, problem, str(refusal))
    held = _holdout_mae(points, recipe) if recipe.holdout is not None else NAN
    return replace(fit, holdout_mae=points.unit * held, loo_mae=points.unit * _leave_one_out_mae(problem))


def fit_problem(points: Checkpoints, problem: Problem) -> Fit:
    """The law of a problem, how well it is known, and the verdict on it. Raises MeasureError where the points do not
    determine it."""
    found, known = problem.estimate, uncertainty(problem)
    if problem.groups is not None and not any(np.isfinite(one.high) for one in known.intervals.values()):
        verdict = validation.TOO_FEW
    elif problem.law.inputs > 1:
        verdict = validation.joint_verdict(problem)
    else:
        verdict = validation.verdict(known.intervals["alpha"], points.x, points.error)
    notes = (*_notes(problem, known), _alike(points, problem, known), _by_levels(problem))
    return Fit(points, problem, found, known, verdict, notes=tuple(note for note in notes if note))


def _weighted(problem: Problem, points: Checkpoints, recipe: Recipe) -> Problem:
    """With weights by evaluation noise where the estimator asks for them."""
    weighted = recipe.estimator == WEIGHTED
    return replace(problem, weights=noise_weights(problem, points.samples)) if weighted else problem


def _holdout_mae(points: Checkpoints, recipe: Recipe) -> float:
    """Mean absolute difference of errors on the checkpoints above the cut, of the law fitted to the others.

    A law of a frontier is scored on the checkpoints of the Pareto set, other laws on all. NaN where no checkpoint lies
    above the cut or the others do not determine the law.
    """
    held = points.x.reshape(len(points.x), -1)[:, 0] > (recipe.holdout or np.inf)
    others = points.where(~held)
    try:
        problem = _weighted(recipe.problem(others), others, recipe)
        if problem.frontier != "none":
            held &= np.isin(np.arange(len(held)), on_frontier("pareto", points.x, points.error))
        return validation.holdout(problem, points.x[held], points.error[held])
    except MeasureError:
        return NAN


def _leave_one_out_mae(problem: Problem) -> float:
    """Mean absolute difference of errors of each checkpoint and the line of the others; only without a frontier, from
    which most checkpoints are meant to be away."""
    if problem.frontier != "none" or problem.freedom <= 1:
        return NAN
    return float(np.abs(validation.leave_one_out(problem)).mean())


def _tolerance(points: Checkpoints, columns: tuple[str, ...]) -> np.ndarray | None:
    """The relative error of the scales where numbers of samples seen are rounded, shaped as ``x``; None without any."""
    if "samples_seen_tolerance" not in points.table:
        return None
    of_samples = np.nan_to_num(numbers(points.table, "samples_seen_tolerance"))
    if not of_samples.any():
        return None
    parts = [of_samples if name in (COMPUTE, "samples_seen") else np.zeros(len(of_samples)) for name in columns]
    return np.stack(parts, axis=1) if len(parts) > 1 else parts[0]


def _alike(points: Checkpoints, problem: Problem, known: Uncertainty) -> str:
    """What is to be said of points that err together: that they are counted as such, or that they should be."""
    if problem.groups is not None:
        clusters = len(set(problem.groups))
        return (
            f"points come in {clusters} clusters, of which each may err as a whole; clusters are taken as independent"
        )
    if known.reason or problem.frontier != "none" or problem.freedom < 1:
        return ""
    if points.table["model"].nunique() == 1:
        return (
            "all points are of one model: they err together, and intervals that take them as independent are too narrow"
        )
    named = {name: points.table[name].tolist() for name in CLUSTERS if _groups(points, name)}
    worth = worth_clustering(problem, named)
    if not worth:
        return ""
    column, found = next(iter(worth.items()))
    alike = f"residuals of the same {column} are alike (intraclass correlation {found.icc:.2f}, {found.groups} of them)"
    return f"{alike}: intervals take points as independent; --cluster {column} does not"


def _by_levels(problem: Problem) -> str:
    """The exponent of a power law where all that members of a cluster share is a level."""
    if (
        problem.groups is None
        or problem.weights is not None
        or problem.frontier != "none"
        or problem.law.name != "power"
    ):
        return ""
    try:
        design = np.stack([problem.log_x, np.ones_like(problem.log_x)], axis=1)
        found = random_intercept(design, problem.log_error, problem.groups.tolist(), np.array([[1.0, 0.0]]))
    except MeasureError:
        return ""
    (low,), (high,) = found.interval()
    return f"if clusters differ in their level alone, alpha is {found.estimate[0]:.6g} [{low:.6g}, {high:.6g}]"


def _groups(points: Checkpoints, column: str) -> bool:
    """Whether the column puts the points in groups, several of more than one."""
    if column not in points.table or points.table[column].isna().any():
        return False
    return FEWEST_GROUPS <= points.table[column].nunique() < len(points.table)


def _notes(problem: Problem, known: Uncertainty) -> list[str]:
    found, alpha, floor = problem.estimate, known.intervals.get("alpha"), known.intervals.get("e_inf")
    given = "given" in known.method
    return [
        problem.law.doubt(problem.error),
        *(f"{name} is not determined: the search ended at its bound" for name in validation.at_bounds(problem)),
        f"{known.lost} draws of the bootstrap did not determine the law and are left out" if known.lost else "",
        "" if found.converged else "the search for the best parameters did not come to the same end from two starts",
        validation.floor_note(floor) if floor else "",
        f"no interval of alpha: {alpha.reason}" if alpha and alpha.reason else "",
        f"no band and no crossover: {known.reason}" if known.reason else "",
        f"bands, forecasts and crossovers: {known.method}" if given else "",
    ]

"""One law: its parameters, how well they are known, how it does on checkpoints it has not seen, and a verdict."""

from __future__ import annotations

from dataclasses import dataclass
from zlib import crc32

import numpy as np

from clipeval.errors import MeasureError, UsageError, suggest
from clipeval.scaling import select as selection
from clipeval.scaling.base import Estimate
from clipeval.scaling.columns import COMPUTE, numbers
from clipeval.scaling.estimate import fit as estimate_law
from clipeval.scaling.estimate import frontier_points
from clipeval.scaling.fitted import Fit, LineOf
from clipeval.scaling.frontier import DEFAULT_FRONTIER, FRONTIERS, Frontier, frontier_for, on_frontier, quantile_line
from clipeval.scaling.laws import LAWS, Law, LogLinear, Sigmoid
from clipeval.scaling.rows import Checkpoints
from clipeval.scaling.uncertainty import Uncertainty, uncertainty

_FEW = 10
_Z_90 = 1.2815515655446004
"""The 90 % quantile of the standard normal distribution."""
_DRAWS_OF_FEW = 100_000


@dataclass(frozen=True)
class Recipe:
    """How laws are fitted. ``columns`` are the scales; ``frontier`` None is the default one; ``holdout`` is a value of
    the first scale, or None; ``bootstrap`` is the number of draws."""

    law: str
    columns: tuple[str, ...]
    frontier: str | None
    bootstrap: int
    seed: int
    holdout: float | None

    def __post_init__(self) -> None:
        """Raises UsageError for a law, frontier or number that does not exist or fit."""
        self.law_of("")
        if self.frontier is not None and self.frontier not in FRONTIERS:
            listed = ", ".join(FRONTIERS)
            raise UsageError(
                f"--frontier {self.frontier}: unknown.{suggest(self.frontier, FRONTIERS)} Frontiers: {listed}."
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
        if self.law not in LAWS or self.law == "loglinear":
            listed = ", ".join(name for name in LAWS if name != "loglinear")
            raise UsageError(f"--law {self.law}: unknown.{suggest(self.law, LAWS)} Laws: {listed}.")
        law = LAWS[self.law]
        if law.inputs != len(self.columns):
            raise UsageError(
                f"--law {self.law} has {law.inputs} scales, --x names {len(self.columns)}: {','.join(self.columns)}."
            )
        return Sigmoid(_chance(dataset)) if isinstance(law, Sigmoid) and dataset else law

    def frontier_of(self, models: int) -> Frontier:
        """The frontier for so many checkpoints; laws of several scales have none."""
        name = "none" if len(self.columns) > 1 else self.frontier or DEFAULT_FRONTIER
        return frontier_for(name, models)

    def draws_of(self, law: Law, points: int) -> int:
        """More draws for a line through few points: its t distribution has tails that 2,000 do not settle."""
        few = points < _FEW and isinstance(law, LogLinear)
        return max(self.bootstrap, _DRAWS_OF_FEW) if few else self.bootstrap

    def seed_of(self, source: str) -> int:
        """A seed of its own for every source, so that the draws of two sources are independent."""
        return crc32(f"{self.seed} {source}".encode())


def fit_one(points: Checkpoints, recipe: Recipe) -> Fit:
    """Fit the law of a recipe to one source; a law that cannot be fitted has no estimate and says why."""
    law, frontier = recipe.law_of(points.cell[1]), recipe.frontier_of(len(points.error))
    try:
        found = estimate_law(law, points.x, points.error, frontier=frontier.name)
    except MeasureError as refusal:
        return Fit.without_law(points, law, frontier.name, str(refusal))
    known = uncertainty(
        law, points.x, points.error, found,
        frontier=frontier.name, x_tolerance=_tolerance(points, recipe.columns),
        draws=recipe.draws_of(law, len(points.error)), seed=recipe.seed_of(points.source),
    )  # fmt: skip
    line = _line_of(points, law, frontier, known, recipe)
    if law.inputs > 1:
        verdict = selection.joint_verdict(law, points.x, points.error, found)
    else:
        verdict = selection.verdict(known.intervals["alpha"], points.x, points.error)
    return Fit(
        points=points,
        law=law,
        frontier=frontier.name,
        estimate=found,
        intervals=known.intervals,
        line=line,
        n_points=found.n,
        verdict=verdict,
        holdout_mae=_holdout_mae(points, recipe, law) if recipe.holdout is not None else float("nan"),
        loo_mae=_leave_one_out_mae(points, law, found, frontier),
        notes=tuple(note for note in _notes(found, known, frontier, line) if note),
    )


def _line_of(points: Checkpoints, law: Law, frontier: Frontier, known: Uncertainty, recipe: Recipe) -> LineOf:
    """What stands for the uncertainty of the law as a whole: in bands, forecasts, crossovers and the test of exponents.

    For the best models of bins, of a Pareto set or of a hull it is that of the line through these points, as if they
    were given: the level of such a line depends on how many models were tried, and no bootstrap tells.
    """
    quantile_line_fitted = frontier.tau != 0.5 and law.name == "power"
    se = _quantile_se(points, frontier, recipe) if quantile_line_fitted else known.alpha_se
    if not known.draws_reason:
        kept = known.draws[np.isfinite(known.draws).all(axis=1)]
        return LineOf(kept, se, known.alpha_df, known.method)
    if frontier.tau != 0.5 or frontier.name == "none" or law.inputs > 1:
        return LineOf(np.empty((0, len(law.names))), se, known.alpha_df, "none")
    chosen = frontier_points(frontier, np.log(points.x)[None], np.log(points.error)[None])
    on = chosen.weight[0] > 0
    x, error = np.exp(chosen.log_x[0, on]), np.exp(chosen.log_error[0, on])
    draws, seed = recipe.draws_of(law, len(x)), recipe.seed_of(points.source)
    given = uncertainty(law, x, error, estimate_law(law, x, error), draws=draws, seed=seed)
    return LineOf(
        given.draws, given.alpha_se, given.alpha_df, f"{given.method} of the frontier's points, taken as given"
    )


def _quantile_se(points: Checkpoints, frontier: Frontier, recipe: Recipe) -> float:
    """The standard error of the exponent of a quantile line for tests of equal exponents, from the central 80 % of a
    bootstrap over checkpoints.

    The outer draws are of resamplings that hold few good checkpoints. With the standard deviation or the 95 % interval
    of all draws the test of two sources rejected equality in 0.6 to 2 % of simulated data sets of one-sided scatter
    instead of 5 %, with this in 3 to 5 % from 20 checkpoints on (bench/fit_tests.py).
    """
    generator = np.random.default_rng(recipe.seed_of(points.source))
    chosen = generator.integers(len(points.error), size=(recipe.bootstrap, len(points.error)))
    alphas, _ = quantile_line(np.log(points.x)[chosen], np.log(points.error)[chosen], frontier.tau)
    low, high = np.nanquantile(alphas, (0.1, 0.9))
    return float((high - low) / (2 * _Z_90))


def _holdout_mae(points: Checkpoints, recipe: Recipe, law: Law) -> float:
    """Mean absolute error in percentage points on the checkpoints above the cut, of the law fitted to the others.

    A law of a frontier is scored on the checkpoints of the Pareto set, other laws on all. NaN where no checkpoint lies
    above the cut or the others do not determine the law.
    """
    held = points.x.reshape(len(points.x), -1)[:, 0] > (recipe.holdout or np.inf)
    frontier = recipe.frontier_of(int((~held).sum()))
    scored = np.ones(len(held), dtype=bool)
    if frontier.name != "none":
        scored = np.isin(np.arange(len(held)), on_frontier("pareto", points.x, points.error))
    try:
        return selection.holdout(law, points.x, points.error, held, scored=scored, frontier=frontier.name).mae
    except MeasureError:
        return float("nan")


def _leave_one_out_mae(points: Checkpoints, law: Law, found: Estimate, frontier: Frontier) -> float:
    """Mean absolute error in percentage points of each checkpoint on the line of the others; only without a frontier,
    from which most checkpoints are meant to be away."""
    if frontier.name != "none" or found.n <= len(law.names) + 1:
        return float("nan")
    return float(np.abs(selection.leave_one_out(law, points.x, points.error, found)).mean())


def _tolerance(points: Checkpoints, columns: tuple[str, ...]) -> np.ndarray | None:
    """The relative error of the scales where numbers of samples seen are rounded, shaped as ``x``; None without any."""
    if "samples_seen_tolerance" not in points.table:
        return None
    of_samples = np.nan_to_num(numbers(points.table, "samples_seen_tolerance"))
    if not of_samples.any():
        return None
    parts = [of_samples if name in (COMPUTE, "samples_seen") else np.zeros(len(of_samples)) for name in columns]
    return np.stack(parts, axis=1) if len(parts) > 1 else parts[0]


def _notes(found: Estimate, known: Uncertainty, frontier: Frontier, line: LineOf) -> list[str]:
    alpha, floor = known.intervals.get("alpha"), known.intervals.get("e_inf")
    return [
        "" if found.converged else "the search for the best parameters did not come to the same end from two starts",
        selection.floor_note(floor) if floor else "",
        f"no interval of alpha: {alpha.reason}" if alpha and alpha.reason else "",
        f"no band and no crossover: {known.draws_reason}" if known.draws_reason and not len(line.draws) else "",
        f"bands, forecasts and crossovers: {line.method}" if known.draws_reason and len(line.draws) else "",
    ]


def _chance(dataset: str) -> float:
    """The accuracy of guessing, from the configuration of data sets; 0 for one that it does not have."""
    from clipeval import config

    entry = config.load(None).datasets.get(dataset)
    return float(entry.chance or 0.0) if entry else 0.0

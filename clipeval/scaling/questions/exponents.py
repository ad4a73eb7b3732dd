"""Are two exponents equal? The test depends on how each of them was estimated."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from clipeval.errors import MeasureError
from clipeval.scaling.fitted import Fit
from clipeval.scaling.uncertainty.clusters import Side, exponents_differ
from clipeval.scaling.uncertainty.permutation import slope_errors
from clipeval.scaling.uncertainty.resample import MANY
from clipeval.stats.significance import WELCH, Difference, t_test

PERMUTATION, CLUSTERED = "permutation", "CR2 by clusters"
_PERMUTATIONS = 2000


def difference(a: Fit, b: Fit) -> Difference:
    """The difference of two exponents: by ``t_test``, of frontiers, whose exponents are not normal, by permutation.

    Permutations reject true equality in 4 to 6 % of simulated data sets of normal or one-sided scatter. Quantile lines
    of ``MANY`` models are normal enough.
    """
    if a.estimate is None or b.estimate is None:
        return Difference()
    clustered = a.problem.groups is not None and b.problem.groups is not None
    if clustered and a.frontier == b.frontier == "none":
        return _by_clusters(*(Side(fit.problem, list(fit.problem.groups)) for fit in (a, b)))  # type: ignore[arg-type]
    delta = a.estimate["alpha"] - b.estimate["alpha"]
    variances = np.array([a.known.alpha_se**2, b.known.alpha_se**2])
    df = np.array([a.known.alpha_df, b.known.alpha_df])
    found = t_test(delta, variances, df)
    frontiers = a.law.name == b.law.name == "power" and {a.frontier, b.frontier} != {"none"}
    frontiers = frontiers and not clustered  # whose residuals cannot be exchanged one by one
    if a.frontier == b.frontier == "quantile":
        frontiers = frontiers and min(len(a.points.x), len(b.points.x)) < MANY
    return _by_permutation(a, b, variances, found) if frontiers and found.test == WELCH else found


def _by_clusters(a: Side, b: Side) -> Difference:
    """Points of the same cluster may err together, also those of a and of b."""
    if "alpha" not in a.problem.law.names:
        return Difference()
    try:
        found = exponents_differ(a, b)
    except MeasureError:
        return Difference()
    return Difference(found.difference, found.low, found.high, found.p, CLUSTERED)


def _by_permutation(a: Fit, b: Fit, variances: np.ndarray, by_t: Difference) -> Difference:
    """Residuals of lines with a common slope are exchanged within each source, and both frontiers drawn again.

    The interval holds the differences that would not be rejected if the errors of the exponents did not depend on it.
    """
    assert a.estimate is not None
    assert b.estimate is not None
    # an exponent without any error, as of a data set on which all are at chance, is the common one
    weights = 1 / variances if variances.all() else variances[::-1]
    common = float(np.average([a.estimate["alpha"], b.estimate["alpha"]], weights=weights))
    orders = _orders(len(a.points.x), len(b.points.x))
    errors = slope_errors(a.problem, common, orders[0]) - slope_errors(b.problem, common, orders[1])
    errors = errors[np.isfinite(errors)]
    delta = by_t.delta
    low, high = delta - np.quantile(errors, (0.975, 0.025))
    tail = min((errors >= delta).mean(), (errors <= delta).mean())
    # of so many permutations none may be as extreme: the data themselves are one
    p = min(1.0, 2 * (tail * len(errors) + 1) / (len(errors) + 1))
    return Difference(delta, float(low), float(high), float(p), PERMUTATION, by_t.p_welch)


@lru_cache(maxsize=4)
def _orders(*counts: int) -> tuple[np.ndarray, ...]:
    """Permutations ``[permutations, n]`` of each of these counts: the same for all data sets of two sources."""
    generator = np.random.default_rng(0)
    return tuple(np.argsort(generator.random((_PERMUTATIONS, n)), axis=-1) for n in counts)

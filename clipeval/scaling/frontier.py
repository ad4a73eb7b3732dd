"""Which points a law is fitted to: all models, or the best ones at each scale.

Bias and standard deviation of the exponent of a power law on each frontier, in 8,000 simulated data sets with the
compute of the 29 LAION models of Cherti et al. 2023 and E = 5.9 * C**-0.1114 (``python -m bench.coverage``):

    frontier     exponential excess    normal scatter     half-normal excess
                 of 0.05 dex           of 0.02 dex        of 0.06 dex
    none         -0.0001  0.0131       +0.0000  0.0053    -0.0002  0.0097
    cherti2023   +0.0064  0.0100       +0.0059  0.0094    +0.0062  0.0103
    pareto       -0.0052  0.0107       -0.0015  0.0076    -0.0044  0.0096
    hull         -0.0081  0.0128       -0.0037  0.0095    -0.0070  0.0109
    quantile     +0.0000  0.0054       -0.0001  0.0094    -0.0002  0.0069

``none`` is unbiased only where the excess does not depend on scale. One that grows from 0.02 to 0.05 dex, as where
small data sets are repeated, biases it by +0.012, and the quantile line by less than 0.002.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

PAPER_BINS = 5
QUANTILE = 0.1


@dataclass(frozen=True)
class Points:
    """Points to fit a law to, in a batch; every array is ``[draws, m]``.

    ``model`` is the position of the model behind a point; ``weight`` is 0 where a slot holds no point, else 1.
    """

    log_x: np.ndarray
    log_error: np.ndarray
    weight: np.ndarray
    model: np.ndarray


@dataclass(frozen=True)
class Frontier:
    """A way to look at the best models only.

    ``points`` maps ``log_x`` and ``log_error`` (natural logarithms, ``[draws, n]``) to the points that are fitted.
    Where ``tau`` is not 1/2, the law is fitted to all of them by regression on that quantile of ln E. With fewer than
    ``smallest`` models there is no frontier to see, and every model belongs to it.
    """

    name: str
    points: Callable[[np.ndarray, np.ndarray], Points]
    tau: float = 0.5
    smallest: int = 0


def every_model(log_x: np.ndarray, log_error: np.ndarray) -> Points:
    """All points."""
    return Points(log_x, log_error, np.ones(log_error.shape), _positions(log_error))


def paper_bins(log_x: np.ndarray, log_error: np.ndarray) -> Points:
    """The lowest error of each of five bins, placed at the centre of its bin.

    The procedure of Cherti et al. 2023 (figures.ipynb in LAION-AI/scaling-laws-openclip): bins of equal width in
    log10 of compute, from the least compute to 0.1 above the most. Empty bins hold no point.
    """
    first, last = log_x.min(-1), log_x.max(-1) + 0.1 * np.log(10)
    edges = np.linspace(first, last, PAPER_BINS + 1, axis=-1)
    bin_of = (log_x[..., None] >= edges[..., None, 1:-1]).sum(-1)
    by_bin = np.where(bin_of[:, None, :] == np.arange(PAPER_BINS)[:, None], log_error[:, None, :], np.inf)
    best = by_bin.min(-1)
    filled = np.isfinite(best)
    centres = (edges[:, 1:] + edges[:, :-1]) / 2
    return Points(centres, np.where(filled, best, 0.0), filled.astype(float), by_bin.argmin(-1))


def pareto(log_x: np.ndarray, log_error: np.ndarray) -> Points:
    """The models that no other one beats at the same or less compute; of equal ones the first."""
    order = np.lexsort((log_error, log_x), axis=-1)
    sorted_error = np.take_along_axis(log_error, order, -1)
    best_before = np.minimum.accumulate(sorted_error, -1)[:, :-1]
    kept = np.ones(log_x.shape)
    kept[:, 1:] = sorted_error[:, 1:] < best_before
    return _kept(log_x, log_error, order, kept)


def hull(log_x: np.ndarray, log_error: np.ndarray) -> Points:
    """The corners of the lower convex hull in log-log axes, from the least compute down to the lowest error."""
    order = np.lexsort((log_error, log_x), axis=-1)
    x, y = np.take_along_axis(log_x, order, -1), np.take_along_axis(log_error, order, -1)
    kept = np.zeros(x.shape)
    kept[:, 0] = 1
    rows, corner = np.arange(len(x)), np.zeros(len(x), dtype=int)
    while len(rows):
        right, down = x[rows] - x[rows, corner, None], y[rows] - y[rows, corner, None]
        slope = np.where(right > 0, down / np.where(right > 0, right, 1.0), np.inf)
        # of the points on the steepest line the farthest is the corner
        corner = x.shape[1] - 1 - np.argmin(slope[:, ::-1], axis=1)
        falls = slope.min(-1) < 0
        rows, corner = rows[falls], corner[falls]
        kept[rows, corner] = 1
    return _kept(log_x, log_error, order, kept)


def _kept(log_x: np.ndarray, log_error: np.ndarray, order: np.ndarray, kept: np.ndarray) -> Points:
    weight = np.empty(log_x.shape)
    np.put_along_axis(weight, order, kept, -1)
    return Points(log_x, log_error, weight, _positions(log_error))


def _positions(log_error: np.ndarray) -> np.ndarray:
    return np.broadcast_to(np.arange(log_error.shape[-1]), log_error.shape)


FRONTIERS = {
    frontier.name: frontier
    for frontier in (
        Frontier("none", every_model),
        Frontier("cherti2023", paper_bins, smallest=PAPER_BINS + 1),
        Frontier("pareto", pareto, smallest=6),
        Frontier("hull", hull, smallest=6),
        Frontier("quantile", every_model, tau=QUANTILE, smallest=round(1 / QUANTILE)),
    )
}
DEFAULT_FRONTIER = "quantile"


def frontier_for(name: str, n: int) -> Frontier:
    """The frontier called ``name``, or ``none`` where ``n`` models are too few to have one."""
    frontier = FRONTIERS[name]
    return frontier if n >= frontier.smallest else FRONTIERS["none"]


def on_frontier(name: str, x: np.ndarray, error: np.ndarray) -> np.ndarray:
    """Positions of the models ``[n]`` whose errors the law is fitted to, in ascending order."""
    points = frontier_for(name, len(x)).points(np.log(x)[None], np.log(error)[None])
    return np.unique(points.model[points.weight > 0])

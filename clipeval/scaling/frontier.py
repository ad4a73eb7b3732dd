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


_IN_CACHE = 400_000
"""Numbers of an array that is worked through at once: draws are independent, and larger arrays leave the processor's
cache at every step of the arithmetic."""


def quantile_line(
    log_x: np.ndarray, log_error: np.ndarray, tau: float, near: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Slope and intercept ``[draws]`` of the line of the ``tau`` quantile of ln E (Koenker and Bassett 1978).

    The minimum of the check loss lies on a line through two points. From one point of the line, the best line through
    it is a weighted quantile of the slopes to the others; the search goes on from the second point of that line and
    ends where neither pivot gains any more (Wesolowsky 1981, Commun. Stat. B 10:479). It begins at a line of the slope
    ``near`` ``[draws]``, or else that of least squares. NaN where log_x does not vary.
    """
    near = _least_squares_slope(log_x, log_error) if near is None else near
    step = max(1, _IN_CACHE // log_x.shape[1])
    parts = (slice(k, k + step) for k in range(0, max(len(log_x), 1), step))
    lines = [_quantile_lines(log_x[part], log_error[part], tau, near[part]) for part in parts]
    slopes, intercepts = zip(*lines, strict=True)
    return np.concatenate(slopes), np.concatenate(intercepts)


def _least_squares_slope(log_x: np.ndarray, log_error: np.ndarray) -> np.ndarray:
    centred = log_x - log_x.mean(-1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.einsum("bn,bn->b", centred, log_error) / np.einsum("bn,bn->b", centred, centred)


_CLOSE, _FAR = 1e-12, 1e6


def _quantile_lines(
    log_x: np.ndarray, log_error: np.ndarray, tau: float, near: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The lines by the lowest points alone: of those above the line only their sum matters (Portnoy and Koenker 1997,
    Stat. Sci. 12:279). Where one of the others turns out to lie below the line, by more points."""
    n, rank = log_x.shape[1], int(tau * log_x.shape[1])
    kept = rank + int(2 * np.sqrt(rank)) + 8
    slope, intercept = np.empty(len(log_x)), np.empty(len(log_x))
    left = np.ones(len(log_x), dtype=bool)
    if kept < n / 2:
        residual = log_error - near[:, None] * log_x
        lowest = _lowest(residual, kept)
        x, y, residual = (part.take(lowest) for part in (log_x, log_error, residual))
        above = Above(n - kept, log_x.sum(-1) - x.sum(-1), log_error.sum(-1) - y.sum(-1))
        slope, intercept = _lines_of_few(x, y, residual, tau, rank, above)
        low_of_all, low_of_few = (
            (v - slope[:, None] * u < intercept[:, None] - _CLOSE).sum(-1) for u, v in ((log_x, log_error), (x, y))
        )
        left = (low_of_all != low_of_few) | np.isnan(slope)
    if left.any():
        x, y, nothing = log_x[left], log_error[left], np.zeros(left.sum())
        residual = y - near[left, None] * x
        slope[left], intercept[left] = _lines_of_few(x, y, residual, tau, rank, Above(0, nothing, nothing))
    return slope, intercept


def _lowest(values: np.ndarray, kept: int) -> np.ndarray:
    """Positions ``[draws, kept]`` in the flattened ``values`` ``[draws, n]`` of the lowest of each row."""
    draws, n = values.shape
    # several times faster than argpartition; of points drawn twice, which are equal, one has to come first
    told_apart = values + _CLOSE * np.arange(n)
    found = np.flatnonzero(told_apart <= np.partition(told_apart, kept - 1, axis=-1)[:, kept - 1, None])
    if len(found) != draws * kept:
        found = np.argpartition(values, kept - 1, axis=-1)[:, :kept] + n * np.arange(draws)[:, None]
    return found.reshape(draws, kept)


@dataclass(frozen=True)
class Above:
    """Points of which only so much is known: how many, and the sums ``[draws]`` of their log_x and log_error."""

    count: int
    x: np.ndarray
    y: np.ndarray

    def right_and_up(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The sums of their distances from points ``[draws]``."""
        return self.x - self.count * x, self.y - self.count * y


def _lines_of_few(
    x: np.ndarray, y: np.ndarray, residual: np.ndarray, tau: float, rank: int, above: Above
) -> tuple[np.ndarray, np.ndarray]:
    """Slope and intercept ``[draws]`` of the lines of points ``[draws, m]`` and those ``above`` them; NaN where these
    alone have no best line."""
    rows = np.arange(len(x))
    pivot = (residual == np.partition(residual, rank, axis=-1)[:, rank, None]).argmax(-1)
    slope, intercept, loss = np.full(len(x), np.nan), np.full(len(x), np.nan), np.full(len(x), np.inf)
    pull, pull_of_x = tau * (above.count + x.shape[1]), tau * (above.x + x.sum(-1))
    while len(rows):
        others = Above(above.count, above.x[rows], above.y[rows])
        new_slope, other, new_loss = _pivot(x[rows], y[rows], pivot[rows], tau, others)
        slope[rows[np.isnan(new_loss)]] = np.nan
        gains = new_loss < loss[rows] - 1e-13
        rows, other = rows[gains], other[gains]
        slope[rows], loss[rows] = new_slope[gains], new_loss[gains]
        at_x = x[rows, pivot[rows]]
        intercept[rows] = y[rows, pivot[rows]] - slope[rows] * at_x
        residual = y[rows] - slope[rows, None] * x[rows] - intercept[rows, None]
        again, pivot[rows] = _turning_point(
            x[rows] - at_x[:, None], residual, other, pull, pull_of_x[rows] - pull * at_x
        )
        rows = rows[again]
    return slope, intercept


def _turning_point(
    right: np.ndarray, residual: np.ndarray, other: np.ndarray, pull: float, pull_of_x: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Whether a line gains when it turns about another of its points than the pivot that it was the best one through,
    and which; ``right`` are the distances from this pivot, ``other`` is a second point of the line.

    A line is best where its points can have shares in [0, 1] that add up, as they are and times their x, to the
    ``pull`` of all points less those below it. Times x, they add up to the least where those on the left are filled
    first, and to the most where those on the right are: beyond these, the last to be filled is the one to turn about.
    """
    on = np.abs(residual) <= _CLOSE
    below, count = residual < -_CLOSE, on.sum(-1)
    share, share_of_x = pull - below.sum(-1), pull_of_x - (right * below).sum(-1)
    rows = np.arange(len(right))
    at = right[rows, other]
    at_pivot, at_other = ((on & (right == where)).sum(-1) for where in (0, at[:, None]))
    of_pivot = share - share_of_x / at  # of two points, as a line has where no third is on it
    again = (of_pivot < -_CLOSE) | (of_pivot > at_pivot + _CLOSE)
    many = np.flatnonzero(count > at_pivot + at_other)
    if len(many):
        again[many], other[many] = _turning_point_of_many(on[many], right[many], share[many], share_of_x[many])
    return again, other


def _turning_point_of_many(
    on: np.ndarray, right: np.ndarray, share: np.ndarray, share_of_x: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    count, rows, place = on.sum(-1), np.arange(len(right)), np.arange(right.shape[1])
    order = np.argsort(np.where(on, right, right + _FAR), axis=-1)
    at = np.where(place < count[:, None], right.take(order + right.shape[1] * rows[:, None]), 0.0)
    last, tolerance = np.clip(share.astype(int), 0, count - 1), _CLOSE * np.abs(right).sum(-1)
    too_little = share_of_x < (at * np.clip(share[:, None] - place, 0, 1)).sum(-1) - tolerance
    too_much = share_of_x > (at * np.clip(share[:, None] - count[:, None] + 1 + place, 0, 1)).sum(-1) + tolerance
    # a line that is too low or too high as a whole turns about the end that is farther from the pivot
    first_is_farther = -at[:, 0] > at[rows, count - 1]
    other = np.where(first_is_farther, order[:, 0], order[rows, count - 1])
    other = np.where(too_little, order[rows, last], np.where(too_much, order[rows, count - 1 - last], other))
    return too_little | too_much | (share < -_CLOSE) | (share > count + _CLOSE), other


def _pivot(
    x: np.ndarray, y: np.ndarray, pivot: np.ndarray, tau: float, above: Above
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The best line through each row's pivot: its slope, the other point it passes through, and its check loss, which
    is NaN where ever steeper lines are better."""
    rows = np.arange(len(x))
    at_x, at_y = x[rows, pivot], y[rows, pivot]
    right, up = x - at_x[:, None], y - at_y[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        slopes = up / right
    slopes[right == 0] = np.inf
    order = np.argsort(slopes, axis=-1)
    passed = np.cumsum(np.abs(right).take(order + x.shape[1] * rows[:, None]), axis=-1)
    # the loss falls with the slope until the reach of the lines passed makes up for the pull of all points
    right_of_others, up_of_others = above.right_and_up(at_x, at_y)
    pull = passed[:, -1] / 2 + (tau - 0.5) * right.sum(-1) + tau * right_of_others
    last = np.maximum(np.isfinite(slopes).sum(-1) - 1, 0)
    position = np.minimum((passed < pull[:, None] * (1 - 1e-12)).sum(-1), last)
    other = order[rows, position]
    slope = slopes[rows, other]
    with np.errstate(invalid="ignore"):
        residual = up - slope[:, None] * right
        loss = tau * residual.sum(-1) - np.minimum(residual, 0).sum(-1) + tau * (up_of_others - slope * right_of_others)
    return slope, other, np.where((pull >= 0) & (pull <= passed[:, -1]), loss, np.nan)


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

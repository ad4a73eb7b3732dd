"""The line of a quantile of points, for many draws of them at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_IN_CACHE = 400_000
"""Numbers of an array that is worked through at once: larger ones leave the processor's cache at every step of the
arithmetic, and of smaller ones the steps themselves take the time."""
_CLOSE, _FAR = 1e-12, 1e6


def quantile_line(
    log_x: np.ndarray, log_error: np.ndarray, tau: float, near: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Slope and intercept ``[draws]`` of the line of the ``tau`` quantile of ln E (Koenker and Bassett 1978).

    The minimum of the check loss lies on a line through two points. From one point of the line, the best line through
    it is a weighted quantile of the slopes to the others; the search goes on from another point of that line
    (Wesolowsky 1981, Commun. Stat. B 10:479) and ends where its points can have the shares of a minimum. It begins at a
    line of the slope ``near`` ``[draws]``. NaN where log_x does not vary.
    """
    step = max(1, _IN_CACHE // log_x.shape[1])
    parts = (slice(k, k + step) for k in range(0, max(len(log_x), 1), step))
    lines = [_quantile_lines(log_x[part], log_error[part], tau, near[part]) for part in parts]
    slopes, intercepts = zip(*lines, strict=True)
    return np.concatenate(slopes), np.concatenate(intercepts)


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

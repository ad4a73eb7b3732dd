"""L-BFGS on gradients alone, for convex functions: near an optimum a sum in float32 shows no decrease any more, while
its gradient still tells the way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

MEMORY = 10
"""Pairs of steps and changes of the gradient that are kept (Liu and Nocedal 1989)."""
_SLOPE = 0.9
"""A step ends where the slope along it is at most this part of the slope at its start (Wolfe's second condition)."""
_MOST_TRIALS = 20


@dataclass(frozen=True)
class Point:
    """A place ``x`` ``[p]``, the ``gradient`` there, and ``size``, what is to fall below the tolerance."""

    x: np.ndarray
    gradient: np.ndarray
    size: float


def minimise(evaluate: Callable[[np.ndarray], Point], start: np.ndarray, tolerance: float, iterations: int) -> Point:
    """The first point whose size is at most ``tolerance``; after ``iterations``, or where rounding hides the way, the
    last one. ``evaluate`` is of a convex function whose second derivatives at the start are about 1."""
    point = evaluate(start)
    steps: list[tuple[np.ndarray, np.ndarray]] = []
    for _ in range(iterations):
        if point.size <= tolerance:
            break
        direction = _direction(point.gradient, steps)
        if point.gradient @ direction >= 0:
            if not steps:
                break
            steps = []
            continue
        following = _along(evaluate, point, direction)
        step, change = following.x - point.x, following.gradient - point.gradient
        if step @ change > 0:
            steps = [*steps, (step, change)][-MEMORY:]
        point = following
    return point


def _direction(gradient: np.ndarray, steps: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Minus the inverse Hessian of ``steps`` (step, change of the gradient; the latest last) times ``gradient``."""
    found, shares = -gradient, []
    for step, change in reversed(steps):
        shares.append((step @ found) / (step @ change))
        found -= shares[-1] * change
    if steps:
        step, change = steps[-1]
        found *= (step @ change) / (change @ change)
    for (step, change), share in zip(steps, reversed(shares), strict=True):
        found += (share - (change @ found) / (step @ change)) * step
    return found


def _along(evaluate: Callable[[np.ndarray], Point], start: Point, direction: np.ndarray) -> Point:
    """A point on the line where the slope is small enough; a slope of a convex function only grows on its way."""
    first = start.gradient @ direction
    low, low_slope, length = 0.0, first, 1.0
    high = high_slope = None
    for _ in range(_MOST_TRIALS):
        point = evaluate(start.x + length * direction)
        slope = point.gradient @ direction
        if abs(slope) <= -_SLOPE * first:
            break
        if slope < 0:
            low, low_slope = length, slope
        else:
            high, high_slope = length, slope
        if high is None:
            length *= 2
        else:
            length = low + (high - low) * np.clip(low_slope / (low_slope - high_slope), 0.1, 0.9)
    return point

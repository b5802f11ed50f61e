"""Whether the aggregate posterior moved: its mean and its variance, unit by unit."""

from __future__ import annotations

import math

import numpy as np

from lowerbound.service.monitoring.drift.blocks import of_blocks, squares_of_blocks
from lowerbound.service.monitoring.drift.measure import TINY, Measure, moments
from lowerbound.service.monitoring.drift.window import Array, Window

MEAN = 0.1  # deviations of the reference's aggregate posterior
VARIANCE = 0.8  # times the reference's, or its inverse


class Aggregate(Measure):
    """Means that moved by more than 0.1 deviations, variances below 0.8 of the reference's or above 1 / 0.8.

    The variance of the aggregate posterior is Var(mu) + E[sigma^2]; that of the means alone is small for a unit that
    says little.

    Args:
        units: D.
        mean: deviations by which a mean may move.
        variance: share of the reference's variance down to which it may shrink; it may grow by the inverse.
    """

    name = "aggregate posterior"

    def __init__(self, units: int, mean: float = MEAN, variance: float = VARIANCE) -> None:
        self.labels = (
            *(f"mean of unit {unit}" for unit in range(units)),
            *(f"log variance of unit {unit}" for unit in range(units)),
        )
        self.floors = np.repeat([mean, -math.log(variance)], units)

    def sums(self, window: Window, length: int) -> Array:
        """Of points, and of their squares plus posterior variances, (K, 2 * D)."""
        points, variances = window.fact("points"), window.fact("variances")
        squares = squares_of_blocks(points, length) + of_blocks(variances, length)
        return np.concatenate([of_blocks(points, length), squares], axis=1)

    def effects(self, sums: Array, rows: int, whole: Array, whole_rows: int) -> Array:
        """Differences of means in deviations, and of log variances, (M, 2 * D)."""
        means, variances = zip(*(_split(part) for part in moments(sums, rows, whole, whole_rows)), strict=True)
        _, total = _split(whole / whole_rows)
        return np.concatenate(
            [(means[0] - means[1]) / np.sqrt(total), np.log(variances[0]) - np.log(variances[1])], axis=1
        )


def _split(means: Array) -> tuple[Array, Array]:
    """Mean and variance of each unit, (..., D), from the means of values and of squares."""
    first, square = np.split(means, 2, axis=-1)
    return first, np.maximum(square - first**2, TINY)

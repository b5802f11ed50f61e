"""Whether the mean of each column moved, up or down."""

from __future__ import annotations

import numpy as np

from lowerbound.service.monitoring.drift.blocks import of_blocks, squares_of_blocks
from lowerbound.service.monitoring.drift.measure import Measure, moments
from lowerbound.service.monitoring.drift.window import Array, Window

FLOOR = 0.2  # deviations of a request
LEAST = 0.01  # nats, as deviation at least: a dead unit's rate varies by rounding


class Rates(Measure):
    """The rate in all, and of each unit: differences of means, in deviations of a request.

    Args:
        reference: rates, (N, D), nats.
        floor: in deviations, below which a rate has not moved.
    """

    name = "rate"

    def __init__(self, reference: Array, floor: float = FLOOR) -> None:
        units = reference.shape[1]
        self.labels = ("rate in all", *(f"rate of unit {unit}" for unit in range(units)))
        self.floors = np.full(units + 1, floor)

    def sums(self, window: Window, length: int) -> Array:
        """Of values and of squares, (K, 2 * (1 + D))."""
        rates = window.fact("rates")
        total = rates.sum(axis=1, dtype=np.float64, keepdims=True)
        parts = [sums(values, length) for sums in (of_blocks, squares_of_blocks) for values in (total, rates)]
        return np.concatenate(parts, axis=1)

    def effects(self, sums: Array, rows: int, whole: Array, whole_rows: int) -> Array:
        """(M, 1 + D)."""
        first, rest = moments(sums, rows, whole, whole_rows)
        units = len(self.labels)
        mean, square = whole[:units] / whole_rows, whole[units:] / whole_rows
        deviation = np.sqrt(np.maximum(square - mean**2, LEAST**2))
        result: Array = (first - rest)[:, :units] / deviation
        return result

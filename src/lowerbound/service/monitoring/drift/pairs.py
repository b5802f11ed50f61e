"""Whether units move together otherwise than before: what no look at single units can see."""

from __future__ import annotations

import numpy as np

from lowerbound.service.monitoring.drift.blocks import whole
from lowerbound.service.monitoring.drift.measure import TINY, Measure, moments
from lowerbound.service.monitoring.drift.window import Array, Window

FLOOR = 0.1  # of a correlation
ALL = 0.05  # root mean square over all pairs
MOST = 64  # units; of more, as many principal components


class Pairs(Measure):
    """The correlation of each pair of units, and the root mean square of all their changes.

    Of more than 64 units the 64 first principal components of the reference are looked at instead.

    Args:
        reference: points, (N, D).
        units: which of them, at least two.
        floor: the change of a correlation below which a pair has not moved.
        every: the same for the root mean square over pairs.
    """

    name = "latent, together"

    def __init__(self, reference: Array, units: Array, floor: float = FLOOR, every: float = ALL) -> None:
        known = reference[:, units].astype(np.float64)
        self._units, self._centre = units, known.mean(axis=0)
        scale = np.maximum(known.std(axis=0), TINY)
        if len(units) > MOST:
            _, vectors = np.linalg.eigh(np.corrcoef(known.T))
            self._map = vectors[:, ::-1][:, :MOST] / scale[:, None]
            names = [f"component {place}" for place in range(MOST)]
        else:
            self._map = np.diag(1 / scale)
            names = [f"unit {unit}" for unit in units]
        self._above = np.triu_indices(len(names), 1)
        self.labels = (
            *(f"{names[one]} with {names[other]}" for one, other in zip(*self._above, strict=True)),
            "all pairs",
        )
        self.floors = np.append(np.full(len(self._above[0]), floor), every)

    def sums(self, window: Window, length: int) -> Array:
        """Of values, of their squares and of the products of pairs, (K, 2 * D + pairs)."""
        return np.stack([self._of(block) for block in whole(window.fact("points"), length)])

    def _of(self, points: Array) -> Array:
        values = (points[:, self._units] - self._centre) @ self._map
        products = values.T @ values
        return np.concatenate([values.sum(axis=0), np.diagonal(products), products[self._above]])

    def effects(self, sums: Array, rows: int, whole: Array, whole_rows: int) -> Array:
        """Differences of correlations, and their root mean square, (M, pairs + 1)."""
        first, rest = (self._correlations(part) for part in moments(sums, rows, whole, whole_rows))
        change = first - rest
        every = np.sqrt(np.mean(change**2, axis=1, keepdims=True))
        return np.concatenate([change, every], axis=1)

    def _correlations(self, means: Array) -> Array:
        """(M, pairs)."""
        units = self._map.shape[1]
        one, other = self._above
        mean = means[:, :units]
        deviation = np.sqrt(np.maximum(means[:, units : 2 * units] - mean**2, TINY))
        covariance = means[:, 2 * units :] - mean[:, one] * mean[:, other]
        result: Array = covariance / (deviation[:, one] * deviation[:, other])
        return result

    def p_values(self, effects: Array, spread: Array) -> Array:
        """As of Gaussians; that of all pairs, whose size is never 0, is left at 1."""
        single = super().p_values(effects, spread)
        single[-1] = 1.0
        return single

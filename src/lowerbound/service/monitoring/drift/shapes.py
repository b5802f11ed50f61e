"""Whether the distribution of each column moved: the largest distance of two distribution functions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import kstwobign

from lowerbound.lab.evaluation.latents import ACTIVE
from lowerbound.service.monitoring.drift.blocks import whole
from lowerbound.service.monitoring.drift.measure import TINY, Measure
from lowerbound.service.monitoring.drift.window import Array, Window

LEVELS = 32  # quantiles of the reference at which distribution functions are compared
FLOOR = 0.1  # distance that matters: as of Gaussians whose means are a quarter of a deviation apart
CHUNK = 4096  # requests at a time, so that a column stays in the processor's cache
MEAN_SQUARE = np.pi**2 / 12  # of Kolmogorov's distribution


class Shapes(Measure):
    """Kolmogorov & Smirnov's distance of each column, on 32 quantiles of the reference.

    Args:
        name: of the question.
        fact: of the window.
        reference: rows of that fact, (N, C).
        columns: which of them, (E,); all by default.
        labels: of all columns, (C,).
        floor: the distance below which a column has not moved.
    """

    def __init__(
        self,
        name: str,
        fact: str,
        reference: Array,
        columns: Array | None = None,
        labels: Sequence[str] | None = None,
        floor: float = FLOOR,
    ) -> None:
        self.name, self._fact = name, fact
        self._columns = np.arange(reference.shape[1]) if columns is None else columns
        every = labels or [f"{fact} {column}" for column in range(reference.shape[1])]
        self.labels = tuple(every[int(column)] for column in self._columns)
        self.floors = np.full(len(self._columns), floor)
        levels = np.linspace(0, 1, LEVELS + 1)[1:-1]
        self._edges = np.quantile(reference[:, self._columns], levels, axis=0).T.copy()

    def sums(self, window: Window, length: int) -> Array:
        """Requests of each block in each cell between quantiles, (K, E * 32)."""
        blocks = whole(window.fact(self._fact), length)
        places = np.arange(len(self._columns))[:, None] * LEVELS
        return np.stack([np.bincount(self._cells(block, places), minlength=places.size * LEVELS) for block in blocks])

    def _cells(self, rows: Array, places: Array) -> Array:
        """The cell of each value of each column, among those of all columns, in any order."""
        found = np.empty((len(self._columns), len(rows)), dtype=np.int64)
        for start in range(0, len(rows), CHUNK):
            part = rows[start : start + CHUNK, self._columns].T.astype(np.float64, order="C")
            for cells, values, edges in zip(found[:, start : start + CHUNK], part, self._edges, strict=True):
                cells[:] = np.searchsorted(edges, values)
        found += places
        return found.reshape(-1)

    def effects(self, sums: Array, rows: int, whole: Array, whole_rows: int) -> Array:
        """Distances, (M, E), in [0, 1]."""
        share = sums / rows - (whole - sums) / (whole_rows - rows)
        apart = np.cumsum(share.reshape(len(sums), -1, LEVELS), axis=2)
        result: Array = np.abs(apart).max(axis=2)
        return result

    def p_values(self, effects: Array, spread: Array) -> Array:
        """By Kolmogorov's distribution; the spread says how many independent requests there are."""
        result: Array = kstwobign.sf(effects * np.sqrt(MEAN_SQUARE) / np.maximum(spread, TINY))
        return result


def active(points: Array) -> Array:
    """Units that say anything: whose points vary by more than 0.01 over requests (Burda et al. 2016), indices."""
    found: Array = np.flatnonzero(points.var(axis=0, dtype=np.float64) > ACTIVE)
    return found

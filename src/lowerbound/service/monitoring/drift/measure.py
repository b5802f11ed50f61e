"""The interface of what is measured of a window: sums over blocks, and effects made of sums."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from scipy.stats import norm

from lowerbound.service.monitoring.drift.window import Array, Window


class Measure(ABC):
    """One question about a window beside a reference.

    All that it keeps of requests are sums, (F,) for each block, so that a window can be put together from any blocks
    by adding. Effects are functions of the sums of a window and of the whole that it was taken from (reference and
    window), and are compared with the rest of that whole.

    Attributes:
        name: of the question.
        labels: of the effects, (E,).
        floors: sizes below which an effect does not matter, however certain it is, (E,).
    """

    name: str
    labels: tuple[str, ...]
    floors: Array

    @abstractmethod
    def sums(self, window: Window, length: int) -> Array:
        """Sums over each block of so many requests, (K, F)."""

    @abstractmethod
    def effects(self, sums: Array, rows: int, whole: Array, whole_rows: int) -> Array:
        """How windows differ from the rest of the whole, (M, E); of either sign, 0 for no difference.

        Args:
            sums: of M windows, (M, F).
            rows: requests in each of them.
            whole: sums of what they were taken from, (F,).
            whole_rows: requests in that.
        """

    def p_values(self, effects: Array, spread: Array) -> Array:
        """Of each effect (E,) alone, from the root mean square of it where nothing drifts, (E,)."""
        return 2 * norm.sf(np.abs(effects) / np.maximum(spread, TINY))


TINY = 1e-12


def moments(sums: Array, rows: int, whole: Array, whole_rows: int) -> tuple[Array, Array]:
    """Means over the requests of each window and of the rest, (M, F) each."""
    return sums / rows, (whole - sums) / (whole_rows - rows)

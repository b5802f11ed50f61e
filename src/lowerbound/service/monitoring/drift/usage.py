"""Whether codes of a codebook are used as often as before."""

from __future__ import annotations

import numpy as np
from scipy.special import xlogy

from lowerbound.service.monitoring.drift.measure import Measure
from lowerbound.service.monitoring.drift.window import Array, Window

FLOOR = 0.01  # nats: as of frequencies that changed by a seventh each
RARE = 5.0  # expected uses in a window, below which codes are merged (Cochran 1954)


class Usage(Measure):
    """Half the G-test's statistic of codes in a window beside the rest, per use: a divergence in nats.

    Codes that are expected fewer than five times in a window are counted as one.

    Args:
        reference: indices, (N, P).
        size: of the codebook; by default one more than the largest index.
        floor: nats per use, below which usage has not moved.
    """

    name = "codebook usage"
    labels = ("usage of codes",)

    def __init__(self, reference: Array, size: int | None = None, floor: float = FLOOR) -> None:
        self._size = int(reference.max()) + 1 if size is None else size
        self.floors = np.array([floor])

    def sums(self, window: Window, length: int) -> Array:
        """Uses of each code in each block, (K, size + 1); the last is for codes that the reference does not know."""
        indices = np.minimum(window.fact("indices"), self._size)
        count, cells = len(indices) // length, self._size + 1
        block = np.repeat(np.arange(count) * cells, length * indices.shape[1])
        found = np.bincount(block + indices.reshape(-1)[: len(block)], minlength=count * cells)
        return found.reshape(count, cells).astype(np.float64)

    def effects(self, sums: Array, rows: int, whole: Array, whole_rows: int) -> Array:
        """Nats per use, (M, 1)."""
        rare = whole * (rows / whole_rows) < RARE
        one, every = _merge(sums, rare), _merge(whole[None], rare)
        first, rest = (part / part.sum(axis=1, keepdims=True) for part in (one, every - one))
        middle = every / every.sum()
        share = one.sum(axis=1, keepdims=True) / every.sum()
        apart = share * _divergence(first, middle) + (1 - share) * _divergence(rest, middle)
        result: Array = apart / share
        return result


def _merge(counts: Array, rare: Array) -> Array:
    """Counts of frequent codes, and of all rare ones together."""
    return np.concatenate([counts[:, ~rare], counts[:, rare].sum(axis=1, keepdims=True)], axis=1)


def _divergence(one: Array, other: Array) -> Array:
    """KL of frequencies, (M, 1), nats."""
    ratio = np.divide(one, other, out=np.ones_like(one), where=other > 0)
    result: Array = xlogy(one, ratio).sum(axis=1, keepdims=True)
    return result

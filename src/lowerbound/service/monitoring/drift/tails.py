"""Whether more requests than before are reconstructed badly, or suspiciously well."""

from __future__ import annotations

import numpy as np
import torch
from scipy.stats import binom

from lowerbound.lab.evaluation.conformal import conformal_threshold
from lowerbound.service.monitoring.drift.blocks import of_blocks
from lowerbound.service.monitoring.drift.measure import Measure, moments
from lowerbound.service.monitoring.drift.window import Array, Window

SHARE = 0.01  # of the reference's errors, beyond each of its two limits
LEAST = 0.005  # of a window: more requests beyond a limit than this matter


class Tails(Measure):
    """Shares of errors above the reference's 99th percentile, and below its first.

    That more than 1 % lie above the 99th percentile is true of half of all healthy windows, so a share counts above a
    binomial limit only: as many requests as chance brings in one window of 1 / level, were they independent.

    Args:
        reference: errors, (N,).
        size: requests in a window.
        level: of false alarms in one look.
        share: beyond each limit.
    """

    name = "reconstruction error"
    labels = ("errors above the limit", "errors below the limit")

    def __init__(self, reference: Array, size: int, level: float, share: float = SHARE) -> None:
        self.limits = conformal_limits(reference, share)
        self.floors = np.full(2, max(LEAST, binomial_limit(size, share, level / 2) / size - share))

    def sums(self, window: Window, length: int) -> Array:
        """Requests beyond each limit, (K, 2)."""
        errors = window.fact("errors")
        low, high = self.limits
        return of_blocks(np.stack([errors > high, errors < low], axis=1), length)

    def effects(self, sums: Array, rows: int, whole: Array, whole_rows: int) -> Array:
        """Differences of shares, (M, 2); fewer beyond a limit is no drift, and counts as none."""
        first, rest = moments(sums, rows, whole, whole_rows)
        result: Array = np.maximum(first - rest, 0)
        return result


def conformal_limits(values: Array, share: float) -> tuple[float, float]:
    """What new values of the same distribution lie below, and above, with at most that probability (Vovk et al. 2005).

    Infinite where there are fewer than 1 / share values to say.
    """
    if len(values) + 1 < 1 / share:
        return -np.inf, np.inf
    known = torch.from_numpy(values)
    return -conformal_threshold(-known, share), conformal_threshold(known, share)


def binomial_limit(size: int, share: float, level: float) -> int:
    """The largest count that is no alarm: P(count > limit) <= level, of `size` independent requests."""
    return int(binom.isf(level, size, share))

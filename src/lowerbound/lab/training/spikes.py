"""Gradient spikes: steps that are better not taken."""

from __future__ import annotations

import statistics
from typing import Any

WINDOW = 100  # norms that are remembered
BEFORE = 20  # norms to see before judging
PATIENCE = 5  # spikes in a row that are skipped; the next one is taken


class SpikeGuard:
    """Skips a step whose gradient norm is far above the recent median, and heals itself.

    Child 2021 skips above a fixed norm, which locks up if norms rise for good: every later step is skipped too. Here
    the limit follows the median of all recent norms, skipped ones included, and no more than five in a row are skipped.

    Args:
        factor: how many medians a norm may have; None never skips.
    """

    def __init__(self, factor: float | None) -> None:
        self.factor = factor
        self.recent: list[float] = []
        self.skipped = 0

    def allows(self, norm: float) -> bool:
        """Take note of a finite gradient norm; whether its step is to be taken."""
        if self.factor is None:
            return True
        spike = len(self.recent) >= BEFORE and norm > self.factor * statistics.median(self.recent)
        self.recent = [*self.recent[-WINDOW + 1 :], norm]
        self.skipped = self.skipped + 1 if spike and self.skipped < PATIENCE else 0
        return self.skipped == 0

    def state(self) -> dict[str, Any]:
        """What to save."""
        return {"recent": self.recent, "skipped": self.skipped}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from what was saved."""
        self.recent, self.skipped = list(state["recent"]), int(state["skipped"])

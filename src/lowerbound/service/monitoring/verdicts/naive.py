"""The rule as it is often written, for those who want it; it promises nothing."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Naive:
    """Means of errors so far, compared at every look.

    With identical models, a margin of 2 % and unpaired traffic it rolls most of them back sooner or later: noise alone
    crosses the margin at one of many looks.
    """

    def __init__(self) -> None:
        self._sums = {"candidate": [0, 0.0], "stable": [0, 0.0]}

    def add(self, candidate: NDArray[Any], stable: NDArray[Any]) -> None:
        """Take errors of each version's rows; those that are not finite are left out."""
        for name, errors in (("candidate", candidate), ("stable", stable)):
            finite = errors[np.isfinite(errors)]
            self._sums[name][0] += len(finite)
            self._sums[name][1] += float(finite.sum())

    @property
    def n(self) -> int:
        """Rows of the candidate."""
        return int(self._sums["candidate"][0])

    @property
    def ratio(self) -> float:
        """Mean error of the candidate over that of the stable version; NaN without rows of both."""
        (n, total), (others, sum_of_others) = self._sums.values()
        return (total / n) / (sum_of_others / others) if n and others and sum_of_others else math.nan

    def state(self) -> dict[str, Any]:
        """All that `restore` needs, as JSON."""
        return {name: [*sums] for name, sums in self._sums.items()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken."""
        self._sums = {name: [*sums] for name, sums in state.items()}

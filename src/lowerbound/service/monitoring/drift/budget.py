"""Alarm budgets: how many false alarms a month one wants, and whether a reference can promise that."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

from lowerbound.errors import UsageError
from lowerbound.service.monitoring.drift.blocks import Blocks
from lowerbound.service.monitoring.drift.window import Array

FACTOR = 2.0  # that a reference's own rate of false alarms may be off, up or down, in two references of three
MONTH_HOURS = 30 * 24
SHORTEST = 3  # windows in a reference
LONGEST = 2**40  # blocks, beyond which a reference is not looked for


@dataclass(frozen=True)
class Budget:
    """At most so many false alarms a month, of all detectors together.

    Attributes:
        false_alarms: a month, on average.
        looks: a month.
    """

    false_alarms: float
    looks: float

    def __post_init__(self) -> None:
        """Check.

        Raises:
            UsageError: not positive, or as many alarms as looks.
        """
        if not 0 < self.false_alarms < self.looks:
            raise UsageError(
                f"{self.false_alarms:g} false alarms in {self.looks:g} looks a month are no budget; give more than 0, "
                "and fewer than looks."
            )

    @staticmethod
    def by_hours(false_alarms: float, hours: float = 1.0) -> Budget:
        """With a look every so many hours."""
        return Budget(false_alarms, MONTH_HOURS / hours)

    @staticmethod
    def by_requests(false_alarms: float, window: int, requests: float) -> Budget:
        """With a look at every window of requests, of which so many come in a month."""
        return Budget(false_alarms, requests / window)

    @property
    def level(self) -> float:
        """The probability of a false alarm that one look may have."""
        return self.false_alarms / self.looks


@dataclass(frozen=True)
class Certificate:
    """What is promised with a reference.

    Attributes:
        budget: that was asked for.
        detectors: that share it equally.
        window: requests of each look.
        reference: requests of the reference.
        blocks: how both are cut.
        needed: requests that a reference needs for this budget.
        least: the smallest budget that this reference certifies, false alarms a month; all looks for none.
    """

    budget: Budget
    detectors: int
    window: int
    reference: int
    blocks: Blocks
    needed: int
    least: float

    @property
    def holds(self) -> bool:
        """Whether the reference is long enough."""
        return self.reference >= self.needed

    def __str__(self) -> str:
        """As sentences."""
        looks = f"{self.budget.looks:,.0f} looks of {self.window:,} requests a month"
        if not self.holds:
            return (
                f"a reference of {self.reference:,} requests certifies {self.least:,.3g} false alarms in {looks}, not "
                f"{self.budget.false_alarms:g}: give {self.needed:,} requests, or a larger budget."
            )
        return (
            f"at most {self.budget.false_alarms:g} false alarms in {looks}, by {self.detectors} detectors together, on "
            f"average over references, and within a factor of {FACTOR:g} with two references of three; {self.needed:,} "
            f"of {self.reference:,} requests of the reference are needed, in blocks of {self.blocks.length:,}, where "
            f"requests are alike for about {self.blocks.dependence:.0f}."
        )


def certify(
    budget: Budget, blocks: Blocks, window: int, reference: int, noise: list[tuple[Array, Array]]
) -> Certificate:
    """Whether a reference is long enough that its own chance errors do not decide how often it alarms.

    Alarms are rare on average over references whatever their length; but a short one that happens to be off is off at
    each look. By the normal approximation, the logarithm of the rate of alarms of an effect that is one at z
    deviations has itself a deviation of about sqrt(z^2 k / K + z^4 / (2 K)) over references of K blocks, for windows of
    k: one term for the reference's mean, one for its variance. An effect below its floor is none, so z is the larger
    of what the budget and what the floor asks for. The expected rate, one such deviation up, may be twice the budget.

    Args:
        budget: what is asked for.
        blocks: how windows and reference are cut.
        window: requests of a look.
        reference: requests.
        noise: of each detector, what each effect varies by from window to window, in blocks of a window and beside
            an endless reference (infinite where that is unknown), and its floor; (E,) each.
    """

    def enough(count: int, level: float) -> bool:
        return all(_rate(spread, floors, blocks.in_window, count, level / len(noise)) <= FACTOR * level / len(noise)
                   for spread, floors in noise)  # fmt: skip

    fewest = SHORTEST * blocks.in_window
    needed = _smallest(lambda count: enough(count, budget.level), fewest)
    have = reference // blocks.length
    levels: list[float] = np.geomspace(budget.level, 0.5, 200).tolist() if have >= fewest else []
    least = next((level for level in levels if enough(have, level)), 1.0) * budget.looks
    return Certificate(budget, len(noise), window, reference, blocks, needed * blocks.length, float(least))


def _rate(spread: Array, floors: Array, count: int, blocks: int, level: float) -> float:
    """Alarms of one detector in a look, with a reference that is off by one deviation."""
    asked = norm.isf(level / (2 * len(spread)))
    z = np.maximum(asked, floors / np.maximum(spread * math.sqrt(1 + count / blocks), 1e-12))
    off = np.sqrt(z**2 * count / blocks + z**4 / (2 * blocks))
    return float(np.exp(np.minimum(np.log(2) + norm.logsf(z) + off, 0)).sum())


def _smallest(holds: Callable[[int], bool], fewest: int) -> int:
    """The smallest count from which on it holds."""
    high = fewest
    while not holds(high) and high < LONGEST:
        high *= 2
    low = max(fewest, high // 2)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return high

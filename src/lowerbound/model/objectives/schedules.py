"""Schedules: plain functions of the optimiser step, so that nothing about them needs saving."""

from __future__ import annotations

import math
from collections.abc import Callable

from lowerbound.model.spec import Count, Positive

Schedule = Callable[[int], float]


def constant(*, value: float) -> Schedule:
    """The same value at every step."""
    return lambda step: value


def linear(*, start: float = 0.0, end: float = 1.0, steps: Count) -> Schedule:
    """From `start` at step 0 to `end` at `steps`, and `end` from then on (Bowman et al. 2016, section 3.1)."""
    return lambda step: start + (end - start) * min(step / steps, 1.0)


def cosine(*, start: float = 0.0, end: float = 1.0, steps: Count) -> Schedule:
    """From `start` at step 0 to `end` at `steps` along half a cosine, flat at both ends, and `end` from then on."""
    return lambda step: end + 0.5 * (start - end) * (1 + math.cos(math.pi * min(step / steps, 1.0)))


def cyclical(
    *, start: float = 0.0, end: float = 1.0, period: Count, rise: Positive = 0.5, cycles: Count = 4
) -> Schedule:
    """Several times from `start` to `end` (Fu et al. 2019): a line over a share `rise` of each `period`, then `end`.

    After the last of the `cycles` it stays at `end`.
    """

    def value(step: int) -> float:
        cycle, place = divmod(step, period)
        return end if cycle >= cycles else start + (end - start) * min(place / (rise * period), 1.0)

    return value

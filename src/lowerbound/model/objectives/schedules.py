"""Schedules: plain functions of the optimiser step, so that nothing about them needs saving."""

from __future__ import annotations

from collections.abc import Callable

from lowerbound.model.spec import Count

Schedule = Callable[[int], float]


def constant(*, value: float) -> Schedule:
    """The same value at every step."""
    return lambda step: value


def linear(*, start: float = 0.0, end: float = 1.0, steps: Count) -> Schedule:
    """From `start` at step 0 to `end` at `steps`, and `end` from then on (Bowman et al. 2016, section 3.1)."""
    return lambda step: start + (end - start) * min(step / steps, 1.0)

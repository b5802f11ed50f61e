"""Learning rates as a function of the step."""

from __future__ import annotations

import math

from lowerbound.recipe import Training


def rate_factor(training: Training, step: int, steps: int) -> float:
    """What learning rates are multiplied by at optimiser step `step` (from 0) of `steps`.

    A linear rise over the warm-up, then 1, or half a cosine down to `final_rate` (Loshchilov & Hutter 2017, eq. 5).
    """
    warm = min(1.0, (step + 1) / max(training.warmup_steps, 1))
    if training.schedule == "constant":
        return warm
    done = min(1.0, max(0, step - training.warmup_steps) / max(steps - training.warmup_steps, 1))
    low = training.final_rate
    return warm * (low + (1 - low) * 0.5 * (1 + math.cos(math.pi * done)))

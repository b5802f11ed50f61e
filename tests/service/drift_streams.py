"""Streams of requests whose drift is known, and models whose requests are of known kinds."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter
from scipy.stats import norm

from lowerbound.service.monitoring.drift.window import Window

Array = NDArray[np.float64]
UNITS, CODES = 4, 16


@dataclass(frozen=True)
class Stream:
    """Gaussian codes, each request like the one before by `alike`; and what drifts."""

    alike: float = 0.0
    mean: float = 0.0
    scale: float = 1.0
    together: float = 0.0
    rate: float = 1.0
    bad: float = 0.0
    codes: float = 0.0

    def draw(self, size: int, chance: np.random.Generator) -> Window:
        noise = series(size, 2 * UNITS + 4, self.alike, chance)
        points = math.sqrt(1 - self.together) * noise[:, :UNITS] + math.sqrt(self.together) * noise[:, -1:]
        points[:, 0] = self.scale * points[:, 0] + self.mean
        rates = np.exp(0.3 * noise[:, UNITS : 2 * UNITS])
        rates[:, 0] *= self.rate
        errors = np.exp(0.4 * noise[:, -2])
        errors[chance.random(size) < self.bad] *= 4
        inputs = noise[:, -4:-2]
        indices = np.minimum((norm.cdf(inputs - self.codes) * CODES).astype(int), CODES - 1)
        return Window(points, np.full_like(points, 0.1), rates, errors, inputs, indices)


def series(size: int, columns: int, alike: float, chance: np.random.Generator) -> Array:
    """First-order autoregressive columns of variance 1."""
    warm = 0 if alike == 0 else int(10 / (1 - alike))
    noise = chance.standard_normal((size + warm, columns))
    if alike == 0:
        return noise
    result: Array = lfilter([math.sqrt(1 - alike**2)], [1, -alike], noise, axis=0)[warm:]
    return result

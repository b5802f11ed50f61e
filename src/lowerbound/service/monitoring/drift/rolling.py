"""The 3-sigma rule on averages of five minutes, with a centre and a scale that outliers do not move."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

from lowerbound.errors import DataError, TooFewError, UsageError
from lowerbound.service.monitoring.drift.window import Array

WIDTH_S = 300.0
FEWEST = 30  # requests, below which an average says too little
BASELINE = 288  # averages: a day of five minutes each
SIGMAS = 3.0
NORMAL = 1 / norm.ppf(0.75)  # a Gaussian's deviation over its median distance from the median
MONTH_S = 30 * 24 * 3600.0
LEAST = 1e-12  # for the logarithm


@dataclass(frozen=True)
class Average:
    """What the rule says of one average.

    Attributes:
        alarm: whether enough of the last averages are off to one side.
        sigmas: how far this one is from the centre; None with too few requests.
        low, high: what averages are to stay within, on the scale of the values.
    """

    alarm: bool
    sigmas: float | None
    low: float
    high: float


class Rule:
    """Alarms if k of the last m averages lie more than some sigmas off, all to the same side.

    On logarithms, with the median of a day or more as centre and the median distance from it as scale. Averages of
    fewer than 30 requests say nothing and are passed over.

    Args:
        baseline: averages in which nothing drifted, (T,), positive; NaN where there were too few requests.
        sigmas: how far off.
        count: k.
        among: m.

    Raises:
        TooFewError: fewer than 288 averages.
        DataError: an average is not positive, or none differs.
        UsageError: k is not between 1 and m.
    """

    def __init__(self, baseline: Array, sigmas: float = SIGMAS, count: int = 2, among: int = 3) -> None:
        if not 1 <= count <= among:
            raise UsageError(f"{count} of {among} averages cannot be asked for; give from 1 to {among}.")
        known = baseline[~np.isnan(baseline)]
        if len(known) < BASELINE:
            raise TooFewError(
                f"{len(known)} averages are too few for a baseline; give {BASELINE}, a day of five minutes."
            )
        if not bool((known >= 0).all()):
            raise DataError("an average of the baseline is negative; the rule is for errors, rates and times.")
        logs = np.log(np.maximum(known, LEAST))
        self.centre = float(np.median(logs))
        self.scale = NORMAL * float(np.median(np.abs(logs - self.centre)))
        if self.scale == 0:
            raise DataError("half of the averages of the baseline are equal; there is no scale to judge others by.")
        self._sigmas, self._count = sigmas, count
        self._last: deque[float] = deque(maxlen=among)

    def update(self, mean: float, requests: int) -> Average:
        """Look at the average of five minutes."""
        reach = self._sigmas * self.scale
        low, high = math.exp(self.centre - reach), math.exp(self.centre + reach)
        if requests < FEWEST:
            return Average(False, None, low, high)
        off = (math.log(max(mean, LEAST)) - self.centre) / self.scale
        self._last.append(off)
        sides = [sum(sign * value > self._sigmas for value in self._last) for sign in (-1, 1)]
        return Average(max(sides) >= self._count, off, low, high)


def averages(times_s: Array, values: Array, width_s: float = WIDTH_S) -> tuple[Array, Array]:
    """Means of values (N,) over spans of time from the first on, NaN without requests, and requests in each, (T,).

    Raises:
        DataError: there are no values, or times do not increase.
    """
    if not len(values) or bool((np.diff(times_s) < 0).any()):
        raise DataError("averages need requests, in the order of their times.")
    span = ((times_s - times_s[0]) // width_s).astype(int)
    count = np.bincount(span)
    total = np.bincount(span, weights=values)
    return np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0), count


def sigmas_for(false_alarms: float, series: int, count: int = 2, among: int = 3, width_s: float = WIDTH_S) -> float:
    """How many sigmas keep a budget of false alarms a month over so many series, at least 3.

    From above: C(m, k) p^k to either side, for independent Gaussian averages.
    """
    spans = MONTH_S / width_s
    tail = (false_alarms / (2 * spans * series * math.comb(among, count))) ** (1 / count)
    return max(SIGMAS, float(norm.isf(min(tail, 0.5))))

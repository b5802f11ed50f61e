"""Numbers of two versions as streams of values whose means are compared with margins; larger is worse."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowerbound.errors import DataError
from lowerbound.service.monitoring.verdicts.rules import Metric

Array = NDArray[Any]
SMALLEST = 1e-8  # an error below counts as this; nobody sees the difference
MOST_WAITING = 10_000  # requests of a canary that wait for one of the stable version


def paired(candidate: Array, stable: Array, far: float) -> dict[Metric, Array]:
    """Values of rows that both versions scored, (N,) each.

    `error` is log(candidate's error / stable's); its mean is the logarithm of a ratio of geometric means. `far_worse`
    is 1 where that exceeds log(far), -1 where it is below -log(far), 0 between. A version that failed on a row (NaN or
    infinity) is infinitely worse there; where both failed, both values are 0.

    Raises:
        DataError: unequally many rows, or a negative error.
    """
    logs = [_logs(errors) for errors in (candidate, stable)]
    if logs[0].shape != logs[1].shape:
        raise DataError(f"{len(logs[0])} errors of the candidate and {len(logs[1])} of the stable version; pair them.")
    both = np.isinf(logs[0]) & np.isinf(logs[1])
    with np.errstate(invalid="ignore"):
        ratio = np.where(both, 0.0, logs[0] - logs[1])
    return {"error": ratio, "far_worse": np.sign(ratio) * (np.abs(ratio) > np.log(far))}


class Unpaired:
    """Makes pairs of rows that were served by one version each.

    A row of the canary stands beside the mean of the stable version's rows since the canary's last one, so that traffic
    may change with the hour. `far_worse` compares failures only: errors of different inputs say little of single rows.
    """

    def __init__(self) -> None:
        self._waiting: deque[tuple[float, bool]] = deque(maxlen=MOST_WAITING)
        self._total, self._failed, self._n = 0.0, 0, 0

    def add(self, canary: Sequence[bool] | Array, errors: Array) -> dict[Metric, Array]:
        """Take rows in the order of their times; the values of the pairs that they complete.

        Raises:
            DataError: unequally many, or a negative error.
        """
        logs = _logs(errors)
        if len(logs) != len(canary):
            raise DataError(f"{len(canary)} rows and {len(logs)} errors; give one of each.")
        pairs = [pair for mine, log in zip(canary, logs.tolist(), strict=True) for pair in self._one(bool(mine), log)]
        values = np.array(pairs, np.float64).reshape(-1, 2)
        return {"error": values[:, 0], "far_worse": values[:, 1]}

    def _one(self, canary: bool, log: float) -> list[tuple[float, float]]:
        failed = log == np.inf
        if canary:
            self._waiting.append((log, failed))
        else:
            self._total += 0.0 if failed else log
            self._failed, self._n = self._failed + failed, self._n + 1
        if not self._waiting or not self._n:
            return []
        log, failed = self._waiting.popleft()
        worked = self._n - self._failed
        ratio = log - self._total / worked if worked else (0.0 if failed else -np.inf)
        pair = (ratio, float(failed) - self._failed / self._n)
        self._total, self._failed, self._n = 0.0, 0, 0
        return [pair]


def _logs(errors: Array) -> Array:
    errors = np.asarray(errors, np.float64).reshape(-1)
    if (errors < 0).any():
        raise DataError("an error is negative; give mean squared errors, or NaN where a version failed.")
    return np.log(np.maximum(np.where(np.isfinite(errors), errors, np.inf), SMALLEST))

"""Whether what a model makes moved away from real rows: features of 10,000 made rows beside a frozen 10,000."""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy.stats import norm
from torch import Tensor

from lowerbound.errors import DataError, TooFewError
from lowerbound.lab.evaluation.distances import frechet_distance, kernel_distance
from lowerbound.lab.evaluation.result import Result

ROWS = 10_000
POINTS = 5.0  # of the Fréchet distance
LEVEL = 0.01  # of the interval


@dataclass(frozen=True)
class ModelVerdict:
    """What is said of made rows.

    Attributes:
        alarm: whether the distance grew by more than was allowed, and by more than chance.
        frechet, kernel: distances from the frozen rows, with standard errors.
        growth: of the Fréchet distance since it was frozen, points.
        low, high: its interval.
        kernel_growth: of the kernel distance, which is not biased by the number of rows.
        extractor: of the features, by its hash.
    """

    alarm: bool
    frechet: Result
    kernel: Result
    growth: float
    low: float
    high: float
    kernel_growth: float
    extractor: str


class ModelDrift:
    """The Fréchet distance may grow by 5 points; always as many rows, and the same extractor.

    A growth that chance explains is no alarm: two samples of one model differ too.

    Args:
        real: features of real rows, frozen, (N, F).
        made: features of rows made when the version was shipped, (N, F).
        extractor: hash of what made the features.
        rows: N.
        points: by which the distance may grow.
        share: of what it was when the version was shipped, by which it may grow if that is more.
        level: of the interval of the growth.

    Attributes:
        points: by which the distance may grow.
        verdict: the last one, None before the first.

    Raises:
        TooFewError: fewer than N rows.
        DataError: more rows than N, or features that do not fit together.
    """

    def __init__(
        self,
        real: Tensor,
        made: Tensor,
        extractor: str,
        rows: int = ROWS,
        points: float = POINTS,
        share: float = 0.0,
        level: float = LEVEL,
    ) -> None:
        self._rows, self._extractor = rows, extractor
        self._reach = float(norm.isf(level / 2))
        self._real = self._counted(real)
        self._shipped = frechet_distance(real, self._counted(made)), kernel_distance(real, made)
        self.points = max(points, share * _value(self._shipped[0]))
        self.verdict: ModelVerdict | None = None

    def update(self, made: Tensor, extractor: str) -> ModelVerdict:
        """Look at features of newly made rows, (N, F).

        Raises:
            TooFewError: fewer than N rows.
            DataError: another extractor, or other rows than N.
        """
        if extractor != self._extractor:
            raise DataError(
                f"features of the extractor {extractor} cannot be compared with those of {self._extractor}; use one."
            )
        frechet, kernel = frechet_distance(self._real, self._counted(made)), kernel_distance(self._real, made)
        growth = _value(frechet) - _value(self._shipped[0])
        reach = self._reach * math.hypot(frechet.stderr or 0.0, self._shipped[0].stderr or 0.0)
        self.verdict = ModelVerdict(
            alarm=growth > max(self.points, reach),
            frechet=frechet,
            kernel=kernel,
            growth=growth,
            low=growth - reach,
            high=growth + reach,
            kernel_growth=_value(kernel) - _value(self._shipped[1]),
            extractor=extractor,
        )
        return self.verdict

    def _counted(self, features: Tensor) -> Tensor:
        if len(features) < self._rows:
            raise TooFewError(
                f"features of {len(features):,} rows are too few for this comparison; give {self._rows:,}."
            )
        if len(features) > self._rows:
            raise DataError(
                f"features of {len(features):,} rows cannot be compared with {self._rows:,}: the distance falls with "
                "their number, so give as many."
            )
        return features


def _value(result: Result) -> float:
    assert isinstance(result.value, float)
    return result.value

"""By how much a candidate's Fréchet distance is larger: at equal N, with an interval for each look."""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy.special import stdtrit
from torch import Tensor

from lowerbound.errors import TooFewError
from lowerbound.lab.evaluation.distances import frechet_jackknife, kernel_distance
from lowerbound.lab.evaluation.result import jackknife

GROUPS = 20  # of rows that are left out in turn
LEAST = 2000  # rows: the distance is too noisy below


@dataclass(frozen=True)
class Look:
    """One comparison of three sets of features, N rows each.

    Attributes:
        n: rows of each set.
        candidate, stable: Fréchet distances to the reference.
        difference, stderr: candidate - stable; its jackknife error.
        kernel_difference: of the unbiased kernel distances, candidate - stable.
        degrees: of freedom of the error.
        extractor: hash of what made the features.
    """

    n: int
    candidate: float
    stable: float
    difference: float
    stderr: float
    kernel_difference: float
    degrees: int
    extractor: str

    def interval(self, look: int, level_worse: float, level_fine: float) -> tuple[float, float]:
        """Limits of the difference at the look of this number (from 1); the levels are for all looks together.

        Look k spends 6 / (pi k)^2 of them.
        """
        spent = 6 / (math.pi * look) ** 2
        low, high = (-stdtrit(self.degrees, spent * level) * self.stderr for level in (level_worse, level_fine))
        return self.difference - low, self.difference + high


def compare(reference: Tensor, candidate: Tensor, stable: Tensor, extractor: str) -> Look:
    """Compare features (N, D) of a candidate's and of the stable version's outputs for the same N inputs or seeds.

    All three sets come from one extractor, and the reference is the same in every look. Rows of one index are left out
    together, so what both versions share does not widen the interval.

    Raises:
        TooFewError: fewer than 2,000 rows, or no more than features.
        DataError: sets of unequal size, or features that are no numbers.
    """
    if len(reference) < LEAST:
        raise TooFewError(f"{len(reference)} rows of each kind are too few to judge Fréchet distances; give {LEAST}.")
    ours, left_out = frechet_jackknife(reference, candidate, GROUPS)
    theirs, others = frechet_jackknife(reference, stable, GROUPS)
    stderr = jackknife((left_out - others).numpy().tolist())
    assert stderr is not None
    kernel, other = (kernel_distance(reference, made).value for made in (candidate, stable))
    assert isinstance(kernel, float)
    assert isinstance(other, float)
    return Look(len(reference), ours, theirs, ours - theirs, stderr, kernel - other, GROUPS - 1, extractor)

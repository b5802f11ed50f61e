"""What a denoising network predicts: all of them say the same, in other units."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import final

from torch import Tensor

from lowerbound.model.distributions.diffusing.levels import Guess, Level
from lowerbound.model.spec import Positive


class Prediction(ABC):
    """The way from a network's output to an estimate of the clean row, of the noise, and so of the score."""

    def inputs(self, z: Tensor, level: Level) -> Tensor:
        """What the network sees of noisy rows: they, at unit scale."""
        return z / level.norm

    @abstractmethod
    def guess(self, output: Tensor, z: Tensor, level: Level) -> Guess:
        """What an output (N, *event) for noisy rows z (N, *event) says of them."""

    @abstractmethod
    def sharpness(self, level: Level) -> Tensor:
        """Squared error of the output that a squared error 1 of the noise is: the loss in the network's own units."""


@final
class PredictNoise(Prediction):
    """The standard noise in a row (Ho et al. 2020, eq. 14)."""

    def guess(self, output: Tensor, z: Tensor, level: Level) -> Guess:
        return Guess((z - level.sigma * output) / level.alpha, output)

    def sharpness(self, level: Level) -> Tensor:
        return level.alpha.new_ones(level.alpha.shape)


@final
class PredictRow(Prediction):
    """The clean row."""

    def guess(self, output: Tensor, z: Tensor, level: Level) -> Guess:
        return Guess(output, (z - level.alpha * output) / level.sigma)

    def sharpness(self, level: Level) -> Tensor:
        return level.ratio.square()


@final
class PredictV(Prediction):
    """v = alpha eps - sigma x (Salimans & Ho 2022, appendix D): as well posed without a signal as without noise."""

    def guess(self, output: Tensor, z: Tensor, level: Level) -> Guess:
        square = level.norm.square()
        x, eps = level.alpha * z - level.sigma * output, level.sigma * z + level.alpha * output
        return Guess(x / square, eps / square)

    def sharpness(self, level: Level) -> Tensor:
        return (level.norm.square() / level.alpha).square()


@final
class PredictVelocity(Prediction):
    """eps - x: the velocity along a straight way from a row to noise (Liu et al. 2023, eq. 1)."""

    def guess(self, output: Tensor, z: Tensor, level: Level) -> Guess:
        total = level.alpha + level.sigma
        return Guess((z - level.sigma * output) / total, (z + level.alpha * output) / total)

    def sharpness(self, level: Level) -> Tensor:
        return ((level.alpha + level.sigma) / level.alpha).square()


@final
class Preconditioned(Prediction):
    """A mixture of the row and its noise such that inputs and targets have unit variance (Karras et al. 2022, table 1).

    Args:
        data: standard deviation of the data; 1 where their scale was learned.
    """

    def __init__(self, *, data: Positive = 1.0) -> None:
        self.data = data

    def inputs(self, z: Tensor, level: Level) -> Tensor:
        return z / level.alpha / self._total(level)

    def guess(self, output: Tensor, z: Tensor, level: Level) -> Guess:
        row, ratio, total = z / level.alpha, level.ratio, self._total(level)
        x = (self.data / total) ** 2 * row + ratio * self.data / total * output
        return Guess(x, ratio / total**2 * row - self.data / total * output)

    def sharpness(self, level: Level) -> Tensor:
        return (self._total(level) / self.data) ** 2

    def _total(self, level: Level) -> Tensor:
        return (level.ratio.square() + self.data**2).sqrt()

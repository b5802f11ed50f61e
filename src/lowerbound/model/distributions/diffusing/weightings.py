"""How much the error of a denoiser counts in training at each level of noise; a bound is reported beside it."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import final

import torch
from torch import Tensor

from lowerbound.model.distributions.diffusing.levels import Level
from lowerbound.model.distributions.diffusing.predictions import Prediction
from lowerbound.model.spec import Positive


class Weighting(ABC):
    """The weight of ||eps - eps_hat||^2 at a uniformly drawn time."""

    @abstractmethod
    def __call__(self, level: Level, slope: Tensor, prediction: Prediction) -> Tensor:
        """The weights, of the shape of `level.alpha`; `slope` is the derivative of its log signal-to-noise ratio."""


@final
class OfBound(Weighting):
    """The bound's own: half the speed of the log signal-to-noise ratio (Kingma et al. 2021, eq. 17)."""

    def __call__(self, level: Level, slope: Tensor, prediction: Prediction) -> Tensor:
        return -0.5 * slope


@final
class Simple(Weighting):
    """1 everywhere (Ho et al. 2020, eq. 14): less for almost clean rows than the bound has, and better pictures."""

    def __call__(self, level: Level, slope: Tensor, prediction: Prediction) -> Tensor:
        return torch.ones_like(slope)


@final
class OfTarget(Weighting):
    """1 for the error of what the network predicts: the loss of flow matching, and the usual one of v."""

    def __call__(self, level: Level, slope: Tensor, prediction: Prediction) -> Tensor:
        return prediction.sharpness(level)


@final
class MinSNR(Weighting):
    """`Simple`, less where there is little noise: min(SNR, gamma) / SNR (Hang et al. 2023, eq. 8).

    Args:
        gamma: the ratio from which on rows count less.
    """

    def __init__(self, *, gamma: Positive = 5.0) -> None:
        self.gamma = gamma

    def __call__(self, level: Level, slope: Tensor, prediction: Prediction) -> Tensor:
        return (self.gamma * level.ratio.square()).clamp(max=1.0)


@final
class LogNormal(Weighting):
    """As if the noise level had a log-normal distribution, at unit weight of the output (Karras et al. 2022, eq. 8).

    Args:
        mean, spread: of the logarithm of sigma / alpha.
    """

    def __init__(self, *, mean: float = -1.2, spread: Positive = 1.2) -> None:
        self.mean, self.spread = mean, spread

    def __call__(self, level: Level, slope: Tensor, prediction: Prediction) -> Tensor:
        far = (level.ratio.log() - self.mean) / self.spread
        density = torch.exp(-0.5 * far.square()) / (self.spread * math.sqrt(2 * math.pi))
        return density * (-0.5 * slope) * prediction.sharpness(level)

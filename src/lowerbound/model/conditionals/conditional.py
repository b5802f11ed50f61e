"""The one type behind posteriors, priors and likelihoods."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from lowerbound.model.spec import Context, DataSpec, Shape

Features = Tensor | Distribution | None


@dataclass(frozen=True)
class Slot:
    """Where a conditional stands in an assembly.

    Attributes:
        event: shape of the variable it describes.
        data: the facts about the data set.
    """

    event: Shape
    data: DataSpec


class Conditional(nn.Module, ABC):
    """A module from features and context to a distribution whose event shape is set.

    Attributes:
        features_shape: shape of the features of one row that `forward` needs from a network; None if it needs none.
    """

    features_shape: Shape | None = None

    @abstractmethod
    def forward(self, features: Features, context: Context | None) -> Distribution:
        """The distribution given features (*batch, *features_shape); `log_prob` is one number per row."""


def in_float(features: Features) -> Tensor:
    """Features as a tensor of at least single precision: densities are fp32 islands in a bf16 or fp16 network."""
    assert isinstance(features, Tensor)
    return features if features.dtype == torch.float64 else features.float()


def softly_bounded(raw: Tensor, low: float, high: float) -> Tensor:
    """Squeeze `raw` into (low, high), low < 0 < high: `b raw / (b + |raw|)` with b the bound of its side.

    Its slope at 0 is 1 and its gradient never dies: it falls like 1/raw^2 (a tanh's falls exponentially, a clamp's is
    0), so that one extreme input cannot freeze a log variance for good.
    """
    bound = torch.where(raw < 0, -low, high)
    return raw * (bound / (bound + raw.abs()))

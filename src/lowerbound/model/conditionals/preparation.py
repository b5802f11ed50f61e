"""From raw rows to x and back: the only scaling, dequantising and binarising there is."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Literal

import torch
from torch import Tensor, nn

from lowerbound.errors import ShapeError
from lowerbound.model.spec import DataSpec
from lowerbound.noise import Noise


class Preparation(nn.Module, ABC):
    """How raw rows become the x that a density describes."""

    @abstractmethod
    def prepare(self, raw: Tensor, noise: Noise | None) -> Tensor:
        """Raw rows (B, *event) to x; without noise, the expected x (deterministic, for use; never for a bound)."""

    @abstractmethod
    def restore(self, x: Tensor) -> Tensor:
        """x, or a reconstruction of it, on the scale of raw values."""

    @property
    @abstractmethod
    def log_jacobian(self) -> float:
        """log |dx / d raw| of one row in nats: log p(raw) = log p(x) + this."""

    @property
    def bound_needs_noise(self) -> bool:
        """Whether x is random given raw, so that figures depend on a seed."""
        return False


class Binary(Preparation):
    """x in {0, 1}: each pixel is 1 with its own intensity as probability, drawn anew each time, or cut at one half.

    Dynamic binarisation follows Burda et al. 2016, section 5. Real-valued data must lie in [0, 1].

    Args:
        data: facts about the data.
        binarisation: "dynamic" or "threshold".
    """

    def __init__(self, data: DataSpec, binarisation: Literal["dynamic", "threshold"]) -> None:
        super().__init__()
        self.maximum = 1 if data.levels is None else data.levels - 1
        self.binarisation = binarisation

    def prepare(self, raw: Tensor, noise: Noise | None) -> Tensor:
        intensity = _real(raw) / self.maximum
        if self.binarisation == "threshold":
            return (intensity >= 0.5).to(intensity.dtype)
        if noise is None:
            return intensity
        return (noise.child("binarise").uniform(1, raw.shape[1:])[0] < intensity).to(intensity.dtype)

    def restore(self, x: Tensor) -> Tensor:
        return x * self.maximum

    @property
    def log_jacobian(self) -> float:
        return 0.0

    @property
    def bound_needs_noise(self) -> bool:
        return self.binarisation == "dynamic"


class Continuous(Preparation):
    """Real numbers as they are; integers of L levels as (raw + u) / L with uniform u, so that a density is a bound.

    With uniform dequantisation log p(x) - D log L is a lower bound of the log-probability of the integers
    (Theis et al. 2016, section 3.1).

    Args:
        data: facts about the data.
    """

    def __init__(self, data: DataSpec) -> None:
        super().__init__()
        self.levels, self.size = data.levels, data.size

    def prepare(self, raw: Tensor, noise: Noise | None) -> Tensor:
        x = _real(raw)
        if self.levels is None:
            return x
        inside = 0.5 if noise is None else noise.child("dequantise").uniform(1, raw.shape[1:])[0]
        return (x + inside) / self.levels

    def restore(self, x: Tensor) -> Tensor:
        return x if self.levels is None else (x * self.levels - 0.5).clamp(0, self.levels - 1)

    @property
    def log_jacobian(self) -> float:
        return 0.0 if self.levels is None else -self.size * math.log(self.levels)

    @property
    def bound_needs_noise(self) -> bool:
        return self.levels is not None


class Tokens(Preparation):
    """Sequences of integers, as they are."""

    def __init__(self, data: DataSpec) -> None:
        super().__init__()
        if data.levels is None:
            raise ShapeError("a likelihood of tokens needs integer data with a known vocabulary.")

    def prepare(self, raw: Tensor, noise: Noise | None) -> Tensor:
        return raw.long()

    def restore(self, x: Tensor) -> Tensor:
        return x

    @property
    def log_jacobian(self) -> float:
        return 0.0


def _real(raw: Tensor) -> Tensor:
    """Raw rows as real numbers: double precision stays, all else is single."""
    return raw if raw.dtype == torch.float64 else raw.float()

"""The interface of all bijections, and how they are put together."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from lowerbound.model.spec import Shape

Mapped = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Place:
    """Where a bijection stands in a flow.

    Attributes:
        event: shape of one row of z and of y; bijections see it flat, (D,).
        context: C, width of the features of a row; 0 where there are none.
        step: its number in the flow, from 0: what alternates, alternates by it.
    """

    event: Shape
    context: int = 0
    step: int = 0

    @property
    def size(self) -> int:
        """D, numbers in a row."""
        return math.prod(self.event)

    @property
    def odd(self) -> bool:
        """Whether it is the second, fourth, ... of its flow."""
        return self.step % 2 == 1


class Bijection(nn.Module, ABC):
    """An invertible function of z (N, D), given features h (N, C) or None.

    A constructor takes a `Place` from the assembly; its keyword arguments are the recipe's settings.
    """

    @abstractmethod
    def forward(self, z: Tensor, h: Tensor | None) -> Mapped:
        """y (N, D) and log |det dy/dz| (N,)."""

    @abstractmethod
    def inverse(self, y: Tensor, h: Tensor | None) -> Mapped:
        """z (N, D) and log |det dy/dz| (N,), the same as `forward` says at z."""


class Chain(Bijection):
    """Bijections one after another.

    Args:
        steps: in the order from z to y.
    """

    def __init__(self, steps: Sequence[Bijection]) -> None:
        super().__init__()
        self.steps = nn.ModuleList(steps)

    def forward(self, z: Tensor, h: Tensor | None) -> Mapped:
        log_det = z.new_zeros(z.shape[0])
        for step in self.steps:
            z, more = step(z, h)
            log_det = log_det + more
        return z, log_det

    def inverse(self, y: Tensor, h: Tensor | None) -> Mapped:
        log_det = y.new_zeros(y.shape[0])
        for step in reversed(self.steps):
            assert isinstance(step, Bijection)
            y, more = step.inverse(y, h)
            log_det = log_det + more
        return y, log_det

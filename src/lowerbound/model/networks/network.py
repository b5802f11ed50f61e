"""The interface of all networks, and the small blocks they share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from lowerbound.errors import ShapeError
from lowerbound.model.spec import Shape

Activation = Literal["relu", "silu", "gelu", "tanh", "leaky_relu"]
ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
    "leaky_relu": nn.LeakyReLU,
}


@dataclass(frozen=True)
class Ports:
    """What a network is plugged into.

    Attributes:
        inputs: shape of one input row.
        outputs: shape of one output row.
        context: width of the context features, 0 where there are none.
        vocabulary: number of token kinds where the input is a sequence of integers.
    """

    inputs: Shape
    outputs: Shape
    context: int = 0
    vocabulary: int | None = None


class Network(nn.Module, ABC):
    """A function from (N, *inputs), and context features (N, C) where there are any, to (N, *outputs).

    A constructor takes `ports` from the assembly; its keyword arguments are the recipe's settings.

    Attributes:
        inputs, outputs: shapes of one row.
        takes_tokens: whether the input may be a sequence of integers.

    Raises:
        ShapeError: it is, and the network takes real numbers only.
    """

    takes_tokens: ClassVar[bool] = False

    def __init__(self, ports: Ports) -> None:
        super().__init__()
        if ports.vocabulary is not None and not self.takes_tokens:
            raise ShapeError(
                "the rows are sequences of tokens, and this network takes real numbers; use the network `tokens` or "
                "`attention-down` as the encoder, or a likelihood of real numbers."
            )
        self.inputs, self.outputs = ports.inputs, ports.outputs

    @abstractmethod
    def forward(self, inputs: Tensor, context: Tensor | None) -> Tensor:
        """Apply the network."""


def with_context(hidden: Tensor, context: Tensor | None) -> Tensor:
    """Append context features (N, C) to flat (N, F) or, as constant planes, to spatial (N, F, H, W) features."""
    if context is None:
        return hidden
    planes = context.to(hidden.dtype).reshape(*context.shape, *(1,) * (hidden.ndim - 2))
    return torch.cat([hidden, planes.expand(*context.shape, *hidden.shape[2:])], dim=1)


class Dropout(nn.Module):
    """Sets a share of units to 0 in training and scales the others up (Srivastava et al. 2014).

    Four masks are cut from each random number of 64 bits: on a CPU, drawing is what torch's own dropout spends its time
    on. The share is rounded to a multiple of 2^-16.

    Args:
        rate: the share, in [0, 1).
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, hidden: Tensor) -> Tensor:
        """The same shape; as it is in evaluation."""
        if not self.training:
            return hidden
        bits = torch.empty((hidden.numel() + 3) // 4, dtype=torch.int64, device=hidden.device).random_(-(2**63), None)
        kept = bits.view(torch.int16)[: hidden.numel()].view(hidden.shape) >= round(self.rate * 2**16) - 2**15
        return hidden * (kept / (1 - self.rate)).to(hidden.dtype)


def dropped(rate: float) -> list[nn.Module]:
    """A layer that sets a share of units to 0 in training, or no layer for a rate of 0."""
    return [Dropout(rate)] if rate else []


def dropped_channels(rate: float, axes: int) -> list[nn.Module]:
    """A layer that sets a share of whole channels to 0 in training (Tompson et al. 2015), or none for a rate of 0.

    Args:
        rate: the share.
        axes: 1 for signals, 2 for images, 3 for videos.
    """
    layers: dict[int, type[nn.Module]] = {1: nn.Dropout1d, 2: nn.Dropout2d, 3: nn.Dropout3d}
    return [layers[axes](rate)] if rate else []

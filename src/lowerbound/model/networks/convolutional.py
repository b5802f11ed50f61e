"""Convolutional networks: from an image down to features, and from features up to an image."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lowerbound.errors import ShapeError
from lowerbound.model.networks.network import (
    ACTIVATIONS,
    Activation,
    Network,
    Ports,
    dropped_channels,
    with_context,
)
from lowerbound.model.spec import Shape, Share


def image_shape(shape: Shape, what: str) -> tuple[int, int, int]:
    """Channels, height and width of an image; refuses other shapes."""
    if len(shape) != 3:
        raise ShapeError(
            f"a convolutional network needs an image (channels, height, width) as its {what}, and was given "
            f'shape {list(shape)}; use `kind = "mlp"` for it.'
        )
    return shape[0], shape[1], shape[2]


def halved(size: int, times: int) -> int:
    """A length after it was halved some times, rounded up each time."""
    for _ in range(times):
        size = math.ceil(size / 2)
    return size


class ConvolutionalDown(Network):
    """Strided 3x3 convolutions that halve an image once per width, then a linear map to the output shape.

    Args:
        ports: from an image (C, H, W) to any shape.
        widths: channels after each halving.
        activation: after each convolution.
        dropout: share of whole channels that are set to 0 in training.
    """

    def __init__(
        self, ports: Ports, *, widths: Sequence[int] = (32, 64), activation: Activation = "silu", dropout: Share = 0.0
    ) -> None:
        super().__init__(ports)
        channels, height, width = image_shape(ports.inputs, "input")
        sizes = [channels + ports.context, *widths]
        layers: list[nn.Module] = []
        for before, after in zip(sizes[:-1], sizes[1:], strict=True):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), ACTIVATIONS[activation]()]
            layers += dropped_channels(dropout)
        self.layers = nn.Sequential(*layers)
        flat = sizes[-1] * halved(height, len(widths)) * halved(width, len(widths))
        self.head = nn.Linear(flat, math.prod(ports.outputs))

    def forward(self, inputs: Tensor, context: Tensor | None) -> Tensor:
        hidden = self.layers(with_context(inputs, context)).flatten(1)
        result: Tensor = self.head(hidden)
        return result.unflatten(1, self.outputs)


class ConvolutionalUp(Network):
    """A linear map to a small image, then nearest-neighbour doubling and 3x3 convolutions up to the output image.

    Resizing before convolving leaves no checkerboard (Odena et al. 2016), and reaches any size exactly.

    Args:
        ports: from any shape to an image (C, H, W).
        widths: channels, one per doubling, smallest image first.
        activation: after each convolution but the last.
        dropout: share of whole channels that are set to 0 in training.
    """

    def __init__(
        self, ports: Ports, *, widths: Sequence[int] = (64, 32), activation: Activation = "silu", dropout: Share = 0.0
    ) -> None:
        super().__init__(ports)
        channels, height, width = image_shape(ports.outputs, "output")
        steps = len(widths)
        self.sizes = [(halved(height, k), halved(width, k)) for k in range(steps, -1, -1)]
        self.start = (widths[0], *self.sizes[0])
        self.stem = nn.Linear(math.prod(ports.inputs) + ports.context, math.prod(self.start))
        after = [*widths[1:], channels]
        self.convolutions = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in zip(widths, after, strict=True))
        self.activation = nn.Sequential(ACTIVATIONS[activation](), *dropped_channels(dropout))

    def forward(self, inputs: Tensor, context: Tensor | None) -> Tensor:
        hidden: Tensor = self.stem(with_context(inputs.flatten(1), context)).unflatten(1, self.start)
        for convolution, size in zip(self.convolutions, self.sizes[1:], strict=True):
            enlarged = torch.nn.functional.interpolate(self.activation(hidden), size=size, mode="nearest")
            hidden = convolution(enlarged)
        return hidden

"""Convolutional networks: from a signal, image or video down to features, and from features up to one."""

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

CONVOLUTIONS: dict[int, type[nn.Module]] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


def grid_shape(shape: Shape, what: str) -> tuple[int, Shape]:
    """Channels, and size along 1 (signal), 2 (image) or 3 (video) axes; refuses other shapes."""
    if len(shape) - 1 not in CONVOLUTIONS:
        raise ShapeError(
            f"a convolutional network needs a signal (channels, length), an image (channels, height, width) or a video "
            f"(channels, frames, height, width) as its {what}, and was given shape {list(shape)}; use "
            '`kind = "mlp"` for it.'
        )
    return shape[0], shape[1:]


def halved(size: int, times: int) -> int:
    """A length after it was halved some times, rounded up each time."""
    for _ in range(times):
        size = math.ceil(size / 2)
    return size


class ConvolutionalDown(Network):
    """Strided convolutions, 3 wide, that halve an image once per width, then a linear map to the output shape.

    Args:
        ports: from an image (C, H, W), signal (C, L) or video (C, T, H, W) to any shape.
        widths: channels after each halving.
        activation: after each convolution.
        dropout: share of whole channels that are set to 0 in training.
    """

    def __init__(
        self, ports: Ports, *, widths: Sequence[int] = (32, 64), activation: Activation = "silu", dropout: Share = 0.0
    ) -> None:
        super().__init__(ports)
        channels, grid = grid_shape(ports.inputs, "input")
        convolution = CONVOLUTIONS[len(grid)]
        sizes = [channels + ports.context, *widths]
        layers: list[nn.Module] = []
        for before, after in zip(sizes[:-1], sizes[1:], strict=True):
            layers += [convolution(before, after, 3, stride=2, padding=1), ACTIVATIONS[activation]()]
            layers += dropped_channels(dropout, len(grid))
        self.layers = nn.Sequential(*layers)
        flat = sizes[-1] * math.prod(halved(size, len(widths)) for size in grid)
        self.head = nn.Linear(flat, math.prod(ports.outputs))

    def forward(self, inputs: Tensor, context: Tensor | None) -> Tensor:
        hidden = self.layers(with_context(inputs, context)).flatten(1)
        result: Tensor = self.head(hidden)
        return result.unflatten(1, self.outputs)


class ConvolutionalUp(Network):
    """A linear map to a small image, then nearest-neighbour doubling and convolutions, 3 wide, up to the output image.

    Resizing before convolving leaves no checkerboard (Odena et al. 2016), and reaches any size exactly.

    Args:
        ports: from any shape to an image (C, H, W), signal (C, L) or video (C, T, H, W).
        widths: channels, one per doubling, smallest image first.
        activation: after each convolution but the last.
        dropout: share of whole channels that are set to 0 in training.
    """

    def __init__(
        self, ports: Ports, *, widths: Sequence[int] = (64, 32), activation: Activation = "silu", dropout: Share = 0.0
    ) -> None:
        super().__init__(ports)
        channels, grid = grid_shape(ports.outputs, "output")
        self.sizes = [tuple(halved(size, k) for size in grid) for k in range(len(widths), -1, -1)]
        self.start = (widths[0], *self.sizes[0])
        self.stem = nn.Linear(math.prod(ports.inputs) + ports.context, math.prod(self.start))
        after = [*widths[1:], channels]
        convolution = CONVOLUTIONS[len(grid)]
        self.convolutions = nn.ModuleList(convolution(a, b, 3, padding=1) for a, b in zip(widths, after, strict=True))
        self.activation = nn.Sequential(ACTIVATIONS[activation](), *dropped_channels(dropout, len(grid)))

    def forward(self, inputs: Tensor, context: Tensor | None) -> Tensor:
        hidden: Tensor = self.stem(with_context(inputs.flatten(1), context)).unflatten(1, self.start)
        for convolution, size in zip(self.convolutions, self.sizes[1:], strict=True):
            enlarged = torch.nn.functional.interpolate(self.activation(hidden), size=size, mode="nearest")
            hidden = convolution(enlarged)
        return hidden

"""Convolutional networks: from a signal, image or video down to features, and from features up to one."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from lowerbound.errors import ShapeError
from lowerbound.model.networks.network import (
    ACTIVATIONS,
    Activation,
    Network,
    Ports,
    dropped_channels,
    with_context,
)
from lowerbound.model.spec import Shape, Share, Widths

CONVOLUTIONS: dict[int, type[nn.Conv1d | nn.Conv2d | nn.Conv3d]] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED: dict[int, Callable[..., Tensor]] = {
    1: functional.conv_transpose1d,
    2: functional.conv_transpose2d,
    3: functional.conv_transpose3d,
}


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


def channels_last(images: Tensor) -> Tensor:
    """Images in the order in memory in which a CPU convolves fastest; signals and videos as they are."""
    return images.contiguous(memory_format=torch.channels_last) if images.ndim == 4 else images


class DoublingConvolution(nn.Module):
    """Doubles each axis by repeating every value, then convolves, 3 wide, without making the doubled tensor.

    Both steps are linear and local, so together they are one transposed convolution, 4 wide with stride 2, whose
    weights are sums of neighbours of the original's: 2.25 times less arithmetic for images, 3.4 times for videos.

    Args:
        before, after: channels.
        grid: sizes to reach; an odd one is cut from the doubled one.
    """

    def __init__(self, before: int, after: int, grid: Shape) -> None:
        super().__init__()
        self.convolution = CONVOLUTIONS[len(grid)](before, after, 3, padding=1)
        self.grid = grid

    def forward(self, hidden: Tensor) -> Tensor:
        """(N, before, *half) to (N, after, *grid)."""
        weight, bias = self.convolution.weight, self.convolution.bias
        for axis in range(2, weight.ndim):
            flipped, none = weight.flip(axis), torch.zeros_like(weight.narrow(axis, 0, 1))
            weight = torch.cat([flipped, none], axis) + torch.cat([none, flipped], axis)
        doubled = TRANSPOSED[len(self.grid)](hidden, weight.transpose(0, 1), bias, stride=2, padding=1)
        inside = (slice(None), slice(None), *(slice(size) for size in self.grid))
        return doubled[inside]


class ConvolutionalDown(Network):
    """Strided convolutions, 3 wide, that halve an image once per width, then a linear map to the output shape.

    Args:
        ports: from an image (C, H, W), signal (C, L) or video (C, T, H, W) to any shape.
        widths: channels after each halving.
        activation: after each convolution.
        dropout: share of whole channels that are set to 0 in training.
    """

    def __init__(
        self, ports: Ports, *, widths: Widths = (32, 64), activation: Activation = "silu", dropout: Share = 0.0
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
        hidden = self.layers(channels_last(with_context(inputs, context))).flatten(1)
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
        self, ports: Ports, *, widths: Widths = (64, 32), activation: Activation = "silu", dropout: Share = 0.0
    ) -> None:
        super().__init__(ports)
        channels, grid = grid_shape(ports.outputs, "output")
        sizes = [tuple(halved(size, k) for size in grid) for k in range(len(widths), -1, -1)]
        self.start = (widths[0], *sizes[0])
        self.stem = nn.Linear(math.prod(ports.inputs) + ports.context, math.prod(self.start))
        layers: list[nn.Module] = []
        for before, after, size in zip(widths, [*widths[1:], channels], sizes[1:], strict=True):
            layers += [ACTIVATIONS[activation](), *dropped_channels(dropout, len(grid))]
            layers.append(DoublingConvolution(before, after, size))
        self.layers = nn.Sequential(*layers)

    def forward(self, inputs: Tensor, context: Tensor | None) -> Tensor:
        hidden: Tensor = self.stem(with_context(inputs.flatten(1), context)).unflatten(1, self.start)
        result: Tensor = self.layers(channels_last(hidden))
        return result

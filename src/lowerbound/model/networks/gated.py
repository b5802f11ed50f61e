"""Residual networks whose blocks begin as nothing, so that any depth trains: fully connected, and on grids."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lowerbound.errors import ShapeError
from lowerbound.model.networks.convolutional import CONVOLUTIONS, TRANSPOSED, channels_last, grid_shape, halved
from lowerbound.model.networks.network import (
    ACTIVATIONS,
    Activation,
    Network,
    Ports,
    dropped,
    dropped_channels,
    with_context,
)
from lowerbound.model.spec import Count, Shape, Share


class Gated(nn.Module):
    """h + gate * layers(h) with a gate that starts at 0 (Bachlechner et al. 2021, eq. 2).

    At the start the block is the identity, at any depth; no normalisation is needed to keep its scale.

    Args:
        layers: from the shape of h to the same shape.
    """

    def __init__(self, layers: nn.Module) -> None:
        super().__init__()
        self.layers = layers
        self.gate = nn.Parameter(torch.zeros(()))

    def forward(self, hidden: Tensor) -> Tensor:
        """The same shape."""
        return hidden + self.gate.to(hidden.dtype) * self.layers(hidden)


class GatedMLP(Network):
    """A stem, blocks `h + gate * W2 act(W1 act(h))`, and a linear head; any shape in, any shape out.

    Args:
        ports: shapes to connect.
        width: units of the residual stream and of each block.
        depth: number of blocks.
        activation: before each layer but the first.
        dropout: share of a block's hidden units that are set to 0 in training.
    """

    def __init__(
        self,
        ports: Ports,
        *,
        width: Count = 256,
        depth: Count = 1,
        activation: Activation = "silu",
        dropout: Share = 0.0,
    ) -> None:
        super().__init__(ports)
        act = ACTIVATIONS[activation]
        layers: list[nn.Module] = [nn.Linear(math.prod(ports.inputs) + ports.context, width)]
        for _ in range(depth):
            block = [act(), nn.Linear(width, width), act(), *dropped(dropout), nn.Linear(width, width)]
            layers.append(Gated(nn.Sequential(*block)))
        self.layers = nn.Sequential(*layers, act(), nn.Linear(width, math.prod(ports.outputs)))

    def forward(self, inputs: Tensor, context: Tensor | None) -> Tensor:
        result: Tensor = self.layers(with_context(inputs.flatten(1), context))
        return result.unflatten(1, self.outputs)


class GatedGrid(Network):
    """From a grid to one that is smaller, larger or the same, with gated residual convolutions on the smaller of both.

    A grid shrinks or grows by a power of 2, in one strided or transposed convolution. Where a grid is at most 2 wide,
    convolutions are 1 wide (Child 2021, section 3.1).

    Args:
        ports: from a signal (C, L), image (C, H, W) or video (C, T, H, W) to another one.
        width: channels of the residual stream.
        inner: channels within a block.
        depth: number of blocks.
        activation: before each convolution but the first.
        dropout: share of whole channels within a block that are set to 0 in training.

    Raises:
        ShapeError: a shape is no grid, or neither grid is the other one halved some times, rounded up.
    """

    def __init__(
        self,
        ports: Ports,
        *,
        width: Count = 32,
        inner: Count = 32,
        depth: Count = 1,
        activation: Activation = "silu",
        dropout: Share = 0.0,
    ) -> None:
        super().__init__(ports)
        (before, here), (after, there) = grid_shape(ports.inputs, "input"), grid_shape(ports.outputs, "output")
        down, up = _times(here, there), _times(there, here)
        if down is None and up is None:
            raise ShapeError(
                f"a grid of {list(here)} does not become one of {list(there)} by halving or doubling each axis the "
                "same number of times; give neighbouring groups of the hierarchy such grids."
            )
        act, axes = ACTIVATIONS[activation], len(here)
        convolution, small = CONVOLUTIONS[axes], min(here if down is None else there)
        kernel = 3 if small > 2 else 1
        layers: list[nn.Module] = [_shrinking(before + ports.context, width, down or 0, axes)]
        for _ in range(depth):
            block = [
                act(),
                convolution(width, inner, kernel, padding=kernel // 2),
                act(),
                *dropped_channels(dropout, axes),
                convolution(inner, width, kernel, padding=kernel // 2),
            ]
            layers.append(Gated(nn.Sequential(*block)))
        self.layers = nn.Sequential(*layers, act(), Growing(width, after, up or 0, there))

    def forward(self, inputs: Tensor, context: Tensor | None) -> Tensor:
        result: Tensor = self.layers(channels_last(with_context(inputs, context)))
        return result


class Growing(nn.Module):
    """Doubles each axis some times in one transposed convolution, twice as wide as its stride; 1 wide for no times.

    Args:
        before, after: channels.
        times: how often each axis is doubled.
        grid: sizes to reach; larger ones are cut.
    """

    def __init__(self, before: int, after: int, times: int, grid: Shape) -> None:
        super().__init__()
        self.stride, self.grid = 2**times, grid
        size = 2 * self.stride if times else 1
        # As of a convolution to one value, of which `before * 2^axes` values are seen.
        bound = 1 / math.sqrt(before * (2 ** len(grid) if times else 1))
        self.weight = nn.Parameter(torch.empty(before, after, *(size,) * len(grid)).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(after))

    def forward(self, hidden: Tensor) -> Tensor:
        """(N, before, *small) to (N, after, *grid)."""
        grown = TRANSPOSED[len(self.grid)](hidden, self.weight, self.bias, stride=self.stride, padding=self.stride // 2)
        return grown[(slice(None), slice(None), *(slice(size) for size in self.grid))]


def _shrinking(before: int, after: int, times: int, axes: int) -> nn.Module:
    """A convolution that halves each axis some times, rounded up; 1 wide for no times."""
    stride = 2**times
    if not times:
        return CONVOLUTIONS[axes](before, after, 1)
    return CONVOLUTIONS[axes](before, after, stride + 1, stride=stride, padding=stride // 2)


def _times(large: Shape, small: Shape) -> int | None:
    """How often each axis of `large` is halved, rounded up, to reach `small`; None where that does not lead there."""
    if len(large) != len(small):
        return None
    for times in range(max(large).bit_length() + 1):
        if tuple(halved(size, times) for size in large) == tuple(small):
            return times
    return None

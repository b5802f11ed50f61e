"""Residual networks: fully connected with skips, and convolutional."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lowerbound.model.networks.convolutional import (
    CONVOLUTIONS,
    DoublingConvolution,
    channels_last,
    grid_shape,
    halved,
)
from lowerbound.model.networks.network import (
    ACTIVATIONS,
    Activation,
    Network,
    Ports,
    dropped,
    dropped_channels,
    with_context,
)
from lowerbound.model.spec import Count, Share, Widths


class ResidualMLP(Network):
    """A stem, blocks `h + W2 act(W1 norm(h))`, and a normalised linear head; any shape in, any shape out.

    Layers are normalised within each row (Ba et al. 2016), before the block (Xiong et al. 2020): a row's answer does
    not depend on its batch.

    Args:
        ports: shapes to connect.
        width: units of the residual stream and of each block.
        depth: number of blocks.
        activation: within a block.
        dropout: share of a block's hidden units that are set to 0 in training.
    """

    def __init__(
        self,
        ports: Ports,
        *,
        width: Count = 256,
        depth: Count = 2,
        activation: Activation = "silu",
        dropout: Share = 0.0,
    ) -> None:
        super().__init__(ports)
        self.stem = nn.Linear(math.prod(ports.inputs) + ports.context, width)
        self.blocks = nn.ModuleList(_block(width, activation, dropout) for _ in range(depth))
        self.head = nn.Sequential(
            nn.LayerNorm(width), ACTIVATIONS[activation](), nn.Linear(width, math.prod(ports.outputs))
        )

    def forward(self, inputs: Tensor, context: Tensor | None) -> Tensor:
        hidden: Tensor = self.stem(with_context(inputs.flatten(1), context))
        for block in self.blocks:
            hidden = hidden + block(hidden)
        result: Tensor = self.head(hidden)
        return result.unflatten(1, self.outputs)


def _block(width: int, activation: Activation, dropout: float) -> nn.Module:
    layers = [nn.LayerNorm(width), nn.Linear(width, width), ACTIVATIONS[activation](), *dropped(dropout)]
    return nn.Sequential(*layers, nn.Linear(width, width))


class SkipMLP(Network):
    """Linear layers, each of which sees the input again: skip connections from z into every layer of a decoder.

    They keep the mutual information between z and the data from falling with depth (Dieng et al. 2019).

    Args:
        ports: shapes to connect.
        widths: units of the hidden layers.
        activation: between layers.
        dropout: share of hidden units that are set to 0 in training.
    """

    def __init__(
        self,
        ports: Ports,
        *,
        widths: Sequence[Count] = (256, 256),
        activation: Activation = "silu",
        dropout: Share = 0.0,
    ) -> None:
        super().__init__(ports)
        own = math.prod(ports.inputs) + ports.context
        before = [0, *widths]
        after = [*widths, math.prod(ports.outputs)]
        self.layers = nn.ModuleList(nn.Linear(own + a, b) for a, b in zip(before, after, strict=True))
        self.between = nn.Sequential(ACTIVATIONS[activation](), *dropped(dropout))

    def forward(self, inputs: Tensor, context: Tensor | None) -> Tensor:
        given = with_context(inputs.flatten(1), context)
        hidden: Tensor = self.layers[0](given)
        for layer in list(self.layers)[1:]:
            hidden = layer(torch.cat([self.between(hidden), given], dim=1))
        return hidden.unflatten(1, self.outputs)


class ResidualBlock(nn.Module):
    """h + conv(act(norm(conv(act(norm(h)))))) at one resolution and width (He et al. 2016, "Identity mappings").

    Channels are normalised in groups within each row (Wu & He 2018).

    Args:
        channels: of h.
        axes: of the grid: 1 for signals, 2 for images, 3 for videos.
        activation: before each convolution.
        dropout: share of whole channels that are set to 0 in training.
    """

    def __init__(self, channels: int, axes: int, activation: Activation, dropout: float) -> None:
        super().__init__()
        groups, convolution = math.gcd(channels, 8), CONVOLUTIONS[axes]
        self.layers = nn.Sequential(
            nn.GroupNorm(groups, channels),
            ACTIVATIONS[activation](),
            convolution(channels, channels, 3, padding=1),
            nn.GroupNorm(groups, channels),
            ACTIVATIONS[activation](),
            *dropped_channels(dropout, axes),
            convolution(channels, channels, 3, padding=1),
        )

    def forward(self, hidden: Tensor) -> Tensor:
        """(N, C, *grid) to the same shape."""
        return hidden + self.layers(hidden)


class ResidualDown(Network):
    """Residual blocks, and a strided convolution that halves the image before each width but the first.

    Args:
        ports: from an image (C, H, W), signal (C, L) or video (C, T, H, W) to any shape.
        widths: channels at each resolution.
        depth: residual blocks at each resolution.
        activation: of all layers.
        dropout: share of whole channels that are set to 0 in training.
    """

    def __init__(
        self,
        ports: Ports,
        *,
        widths: Widths = (32, 64),
        depth: Count = 1,
        activation: Activation = "silu",
        dropout: Share = 0.0,
    ) -> None:
        super().__init__(ports)
        channels, grid = grid_shape(ports.inputs, "input")
        convolution = CONVOLUTIONS[len(grid)]
        layers: list[nn.Module] = [convolution(channels + ports.context, widths[0], 3, padding=1)]
        for index, here in enumerate(widths):
            if index:
                layers.append(convolution(widths[index - 1], here, 3, stride=2, padding=1))
            layers += [ResidualBlock(here, len(grid), activation, dropout) for _ in range(depth)]
        self.layers = nn.Sequential(*layers, ACTIVATIONS[activation]())
        flat = widths[-1] * math.prod(halved(size, len(widths) - 1) for size in grid)
        self.head = nn.Linear(flat, math.prod(ports.outputs))

    def forward(self, inputs: Tensor, context: Tensor | None) -> Tensor:
        hidden = self.layers(channels_last(with_context(inputs, context))).flatten(1)
        result: Tensor = self.head(hidden)
        return result.unflatten(1, self.outputs)


class ResidualUp(Network):
    """A linear map to a small image, then residual blocks, with a doubling before each width but the first.

    Args:
        ports: from any shape to an image (C, H, W), signal (C, L) or video (C, T, H, W).
        widths: channels at each resolution, smallest image first.
        depth: residual blocks at each resolution.
        activation: of all layers.
        dropout: share of whole channels that are set to 0 in training.
    """

    def __init__(
        self,
        ports: Ports,
        *,
        widths: Widths = (64, 32),
        depth: Count = 1,
        activation: Activation = "silu",
        dropout: Share = 0.0,
    ) -> None:
        super().__init__(ports)
        channels, grid = grid_shape(ports.outputs, "output")
        convolution = CONVOLUTIONS[len(grid)]
        sizes = [tuple(halved(size, k) for size in grid) for k in range(len(widths) - 1, -1, -1)]
        self.start = (widths[0], *sizes[0])
        self.stem = nn.Linear(math.prod(ports.inputs) + ports.context, math.prod(self.start))
        layers: list[nn.Module] = []
        for index, here in enumerate(widths):
            if index:
                layers.append(DoublingConvolution(widths[index - 1], here, sizes[index]))
            layers += [ResidualBlock(here, len(grid), activation, dropout) for _ in range(depth)]
        self.layers = nn.Sequential(*layers, ACTIVATIONS[activation](), convolution(widths[-1], channels, 3, padding=1))

    def forward(self, inputs: Tensor, context: Tensor | None) -> Tensor:
        hidden: Tensor = self.stem(with_context(inputs.flatten(1), context)).unflatten(1, self.start)
        result: Tensor = self.layers(channels_last(hidden))
        return result

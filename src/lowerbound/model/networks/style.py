"""A generator's network in which a style scales the channels of every layer, and noise moves single pixels."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from lowerbound.errors import ShapeError
from lowerbound.model.networks.convolutional import grid_shape, halved
from lowerbound.model.networks.mlp import MLP
from lowerbound.model.networks.network import Network, Ports
from lowerbound.model.spec import Count, Widths

SLOPE = 0.2  # of the leaky ReLU


class StyleUp(Network):
    """From z up to an image, by styles (Karras et al. 2019, section 2; 2020, section 2.2 and figure 7).

    The first units of z go through a mapping network, and what comes of them scales the channels of each convolution.
    The last are noise of single pixels, one for each place at each size: so noise is a part of z, and an image is a
    function of z. Sizes are made coarse to fine from a learned constant, and each adds its own picture to the image.

    Args:
        ports: from z, flat, to an image (C, H, W); z must have more units than there are places at all sizes.
        widths: channels at each size, smallest image first.
        mapping: widths of the mapping network.
        style: units of what it makes.

    Raises:
        ShapeError: z is too small, or the output is no image.
    """

    def __init__(
        self, ports: Ports, *, widths: Widths = (64, 48, 32), mapping: Widths = (64,), style: Count = 64
    ) -> None:
        super().__init__(ports)
        channels, grid = grid_shape(ports.outputs, "output")
        if len(grid) != 2:
            raise ShapeError(f"the network `style` makes images (C, H, W), and was given shape {list(ports.outputs)}.")
        self.grids = [(halved(grid[0], k), halved(grid[1], k)) for k in range(len(widths) - 1, -1, -1)]
        self.places = [height * width for height, width in self.grids]
        size = math.prod(ports.inputs)
        if size <= sum(self.places):
            raise ShapeError(
                f"the network `style` needs more than {sum(self.places)} units of z, the last {sum(self.places)} of "
                f"which are noise of single pixels, and there are {size}; set model.latent={sum(self.places) + 32}."
            )
        self.units = size - sum(self.places)
        self.mapping = MLP(Ports((self.units,), (style,), ports.context), widths=mapping, activation="leaky_relu")
        self.start = nn.Parameter(torch.randn(widths[0], *self.grids[0]))
        before = [widths[0], *widths[:-1]]
        pairs = zip(before, widths, strict=True)
        self.layers = nn.ModuleList(ModulatedConvolution(one, other, 3, style) for one, other in pairs)
        self.pictures = nn.ModuleList(ModulatedConvolution(width, channels, 1, style, hold=False) for width in widths)
        self.strengths = nn.Parameter(torch.zeros(len(widths)))

    def forward(self, inputs: Tensor, context: Tensor | None) -> Tensor:
        z, *noise = inputs.flatten(1).split([self.units, *self.places], dim=1)
        z = z * (z.square().mean(dim=1, keepdim=True) + 1e-8).rsqrt()
        style = self.mapping(z, context)
        hidden, image = self.start.expand(len(z), *self.start.shape), torch.zeros((), device=z.device, dtype=z.dtype)
        for level, (layer, picture) in enumerate(zip(self.layers, self.pictures, strict=True)):
            if level:
                hidden, image = (functional.interpolate(each, self.grids[level]) for each in (hidden, image))
            moved = self.strengths[level] * noise[level].unflatten(1, (1, *self.grids[level]))
            hidden = functional.leaky_relu(layer(hidden, style) + moved, SLOPE)
            image = image + picture(hidden, style)
        return image


class ModulatedConvolution(nn.Module):
    """A convolution whose input channels are scaled by a style, and whose outputs then have their size again.

    Scaling and holding act on activations, which is the same as on weights of each row (Karras et al. 2020, eq. 1-3).

    Args:
        before, after: channels.
        width: of the kernel, odd.
        style: units of the style.
        hold: whether outputs are divided by the size of their weights.
    """

    def __init__(self, before: int, after: int, width: int, style: int, hold: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(after, before, width, width) / math.sqrt(before * width**2))
        self.bias = nn.Parameter(torch.zeros(after))
        self.scales = nn.Linear(style, before)
        nn.init.ones_(self.scales.bias)
        self.hold = hold

    def forward(self, hidden: Tensor, style: Tensor) -> Tensor:
        """(N, before, H, W) and styles (N, style) to (N, after, H, W)."""
        scales = self.scales(style)
        made = functional.conv2d(hidden * scales[:, :, None, None], self.weight, padding=self.weight.shape[-1] // 2)
        if self.hold:
            sizes = (scales.square() @ self.weight.square().sum(dim=(2, 3)).T + 1e-8).rsqrt()
            made = made * sizes[:, :, None, None]
        return made + self.bias[:, None, None]

"""Movement of a network's input images in training."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from lowerbound.errors import ShapeError
from lowerbound.kinds import Part
from lowerbound.model.networks.mlp import MLP
from lowerbound.model.networks.network import Network, Ports

Size = Annotated[float, Field(ge=0)]
KNOTS = 4  # along each axis, of the grid of displacements that a warp is interpolated from


class Moving(Network):
    """Another network whose input images are moved, slanted and warped in training: an encoder of what stays.

    The bound stays one on the unmoved data, for only the posterior sees the moved input (Im et al. 2017): codes cannot
    tell how a row was moved, and come to say what it is. In evaluation nothing is moved. Movements follow torch's
    generator, which training sets for every batch; what comes in is a copy of the border.

    Args:
        ports: from images (C, H, W) to any shape.
        network: what sees the moved input.
        shift: largest move along each axis, pixels.
        slant: largest change of each entry of the linear map of coordinates, which is 1 where nothing turns, shears or
            stretches: 0.25 turns by up to 14 degrees.
        warp: standard deviation of the displacements of a grid of 4 by 4 points, pixels.
    """

    def __init__(
        self,
        ports: Ports,
        *,
        network: Part[Network] = Part(MLP),
        shift: Size = 2.0,
        slant: Size = 0.2,
        warp: Size = 1.0,
    ) -> None:
        super().__init__(ports)
        if len(ports.inputs) != 3:
            raise ShapeError(
                f"only images (channels, height, width) can be moved, and rows here have shape {list(ports.inputs)}; "
                "use the network within by itself."
            )
        self.network, self.shift, self.slant, self.warp = network(ports), shift, slant, warp

    def forward(self, inputs: Tensor, context: Tensor | None) -> Tensor:
        result: Tensor = self.network(self.moved(inputs) if self.training else inputs, context)
        return result

    def moved(self, images: Tensor) -> Tensor:
        """Each image (N, C, H, W) moved at random."""
        rows, (_, height, width) = len(images), self.inputs
        pixel = torch.tensor([2 / width, 2 / height], device=images.device)  # of coordinates from -1 to 1

        def spread(*shape: int) -> Tensor:
            return 2 * torch.rand(rows, *shape, device=images.device) - 1

        linear = torch.eye(2, device=images.device) + self.slant * spread(2, 2)
        move = (self.shift * spread(2) * pixel).unsqueeze(-1)
        places = functional.affine_grid(torch.cat([linear, move], -1), list(images.shape), align_corners=False)
        knots = self.warp * torch.randn(rows, 2, KNOTS, KNOTS, device=images.device) * pixel[:, None, None]
        displaced = functional.interpolate(knots, (height, width), mode="bicubic", align_corners=True)
        return functional.grid_sample(
            images, places + displaced.movedim(1, -1), padding_mode="border", align_corners=False
        )

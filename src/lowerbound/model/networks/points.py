"""Networks over points in no order."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lowerbound.errors import ShapeError
from lowerbound.model.networks.fourier import waves
from lowerbound.model.networks.network import ACTIVATIONS, Activation, Network, Ports, with_context
from lowerbound.model.spec import Count, Widths

OCTAVES = 3  # of the sines and cosines of coordinates
CONTRAST = 8.0  # solids fill a fifteenth of the cube on average, so that means over all points are small


class PointEncoder(Network):
    """One network of each point, the largest and the mean of each feature over the points, and a head: PointNet.

    Its output does not depend on the order of the points (Qi et al. 2017, eq. 1); the mean beside the largest lets it
    count.

    Args:
        ports: from points (P, D) to any shape.
        widths: of the layers that see one point at a time.
        width: of the head's hidden layer.
        activation: between layers.
    """

    def __init__(
        self, ports: Ports, *, widths: Widths = (64, 128), width: Count = 128, activation: Activation = "silu"
    ) -> None:
        super().__init__(ports)
        if len(ports.inputs) != 2:
            raise ShapeError(
                f"a network of points needs rows (points, coordinates), and was given shape {list(ports.inputs)}; use "
                "it with clouds or queries."
            )
        sizes = [self.seen(ports.inputs[1]), *widths]
        layers: list[nn.Module] = []
        for before, after in zip(sizes[:-1], sizes[1:], strict=True):
            layers += [nn.Linear(before, after), ACTIVATIONS[activation]()]
        self.each = nn.Sequential(*layers)
        self.head = nn.Sequential(
            nn.Linear(2 * sizes[-1] + ports.context, width),
            ACTIVATIONS[activation](),
            nn.Linear(width, math.prod(ports.outputs)),
        )

    def seen(self, columns: int) -> int:
        """How many numbers of each point the network sees."""
        return columns

    def look(self, inputs: Tensor) -> Tensor:
        """What it sees of each point of rows (N, P, D)."""
        return inputs

    def forward(self, inputs: Tensor, context: Tensor | None) -> Tensor:
        features = self.each(self.look(inputs))
        pooled = torch.cat([features.amax(dim=1), features.mean(dim=1)], dim=1)
        result: Tensor = self.head(with_context(pooled, context))
        return result.unflatten(1, self.outputs)


class QueryEncoder(PointEncoder):
    """PointNet of queries: of waves of the coordinates, and of the same waves for points that lie inside.

    The mean over the points of a wave times inside or not is a Fourier coefficient of the solid. Without these
    products few points of many say where a solid lies, and it takes thousands of steps to find out which.

    Args:
        ports: from queries (P, 4), coordinates in the unit cube and 1 inside or 0, to any shape.
        widths: of the layers that see one point at a time.
        width: of the head's hidden layer.
        activation: between layers.
    """

    def seen(self, columns: int) -> int:
        if columns != 4:
            raise ShapeError(
                f"a network of queries needs rows (points, 4), coordinates and inside or not, and was given {columns} "
                "columns; use the network `points` for clouds."
            )
        return 2 * (3 + 6 * OCTAVES) + 1

    def look(self, inputs: Tensor) -> Tensor:
        seen, inside = place_waves(inputs[..., :3], OCTAVES), inputs[..., 3:]
        return torch.cat([seen, CONTRAST * inside * seen, 2 * inside - 1], dim=2)


def place_waves(where: Tensor, octaves: int) -> Tensor:
    """Coordinates in the unit cube (..., 3) on [-1, 1], then their sines and cosines, (..., 3 + 6 * octaves)."""
    return torch.cat([2 * where, waves(where, octaves)], dim=-1)

"""Networks over points in no order."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lowerbound.errors import ShapeError
from lowerbound.model.networks.network import ACTIVATIONS, Activation, Network, Ports, with_context
from lowerbound.model.spec import Count, Widths


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
        sizes = [ports.inputs[1], *widths]
        layers: list[nn.Module] = []
        for before, after in zip(sizes[:-1], sizes[1:], strict=True):
            layers += [nn.Linear(before, after), ACTIVATIONS[activation]()]
        self.each = nn.Sequential(*layers)
        self.head = nn.Sequential(
            nn.Linear(2 * sizes[-1] + ports.context, width),
            ACTIVATIONS[activation](),
            nn.Linear(width, math.prod(ports.outputs)),
        )

    def forward(self, inputs: Tensor, context: Tensor | None) -> Tensor:
        features = self.each(inputs)
        pooled = torch.cat([features.amax(dim=1), features.mean(dim=1)], dim=1)
        result: Tensor = self.head(with_context(pooled, context))
        return result.unflatten(1, self.outputs)

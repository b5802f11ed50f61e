"""Fully connected networks."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn

from lowerbound.model.networks.network import ACTIVATIONS, Activation, Network, Ports, dropped, with_context
from lowerbound.model.spec import Count, Share


class MLP(Network):
    """Linear layers with an activation between them; any shape in, any shape out.

    Args:
        ports: shapes to connect.
        widths: units of the hidden layers.
        activation: between layers.
        dropout: share of hidden units that are set to 0 in training (Srivastava et al. 2014).
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
        sizes = [math.prod(ports.inputs) + ports.context, *widths]
        layers: list[nn.Module] = []
        for before, after in zip(sizes[:-1], sizes[1:], strict=True):
            layers += [nn.Linear(before, after), ACTIVATIONS[activation](), *dropped(dropout)]
        self.layers = nn.Sequential(*layers, nn.Linear(sizes[-1], math.prod(ports.outputs)))

    def forward(self, inputs: Tensor, context: Tensor | None) -> Tensor:
        hidden: Tensor = self.layers(with_context(inputs.flatten(1), context))
        return hidden.unflatten(1, self.outputs)

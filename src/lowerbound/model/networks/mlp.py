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


class ModulatedMLP(Network):
    """Linear layers whose hidden units the context scales and shifts: FiLM (Perez et al. 2018, eq. 2).

    It learns products of its input and what it is told, such as a shape that moves with its place, in a fraction of
    the steps of a network that sees both side by side. Without context it is plain.

    Args:
        ports: shapes to connect.
        widths: units of the hidden layers.
        activation: after each of them.
    """

    def __init__(
        self, ports: Ports, *, widths: Sequence[Count] = (64, 64, 64), activation: Activation = "silu"
    ) -> None:
        super().__init__(ports)
        sizes = [math.prod(ports.inputs), *widths]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(sizes[:-1], sizes[1:], strict=True))
        self.tell = nn.ModuleList(nn.Linear(ports.context, 2 * width) for width in widths if ports.context)
        self.between = ACTIVATIONS[activation]()
        self.head = nn.Linear(sizes[-1], math.prod(ports.outputs))

    def forward(self, inputs: Tensor, context: Tensor | None) -> Tensor:
        hidden = inputs.flatten(1)
        for place, layer in enumerate(self.layers):
            hidden = layer(hidden)
            if context is not None:
                scale, shift = self.tell[place](context).chunk(2, dim=1)
                hidden = hidden * (1 + scale) + shift
            hidden = self.between(hidden)
        result: Tensor = self.head(hidden)
        return result.unflatten(1, self.outputs)

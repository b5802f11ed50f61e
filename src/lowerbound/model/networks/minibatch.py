"""A critic's network that compares the rows of a batch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lowerbound.kinds import Part
from lowerbound.model.networks.mlp import MLP
from lowerbound.model.networks.network import Network, Ports
from lowerbound.model.spec import Count


class Minibatch(Network):
    """Features of a row, and how near those of the other rows of the batch are (Salimans et al. 2016, section 3.2).

    A generator whose rows are all alike is then found out by one look. Only for critics: an answer depends on the
    batch.

    Args:
        ports: shapes to connect.
        network: from rows to features.
        features: how many.
        kernels, width: B and C of the paper: comparisons, and numbers of each.
    """

    def __init__(
        self,
        ports: Ports,
        *,
        network: Part[Network] = Part(MLP, widths=[128], activation="leaky_relu"),
        features: Count = 64,
        kernels: Count = 16,
        width: Count = 8,
    ) -> None:
        super().__init__(ports)
        self.network = network(Ports(ports.inputs, (features,), ports.context))
        self.compare = nn.Linear(features, kernels * width, bias=False)
        self.kernels = kernels
        self.head = MLP(Ports((features + kernels,), ports.outputs), widths=[features], activation="leaky_relu")

    def forward(self, inputs: Tensor, context: Tensor | None) -> Tensor:
        found = self.network(inputs, context)
        kernels: Tensor = self.compare(found).unflatten(1, (self.kernels, -1))
        distance = (kernels[:, None] - kernels[None]).abs().sum(dim=3)  # (N, N, kernels)
        near = (-distance).exp().sum(dim=1) - 1  # without itself
        result: Tensor = self.head(torch.cat([found, near], dim=1), None)
        return result

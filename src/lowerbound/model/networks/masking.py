"""Masking of a network's input in training."""

from __future__ import annotations

import torch
from torch import Tensor

from lowerbound.kinds import Part
from lowerbound.model.networks.mlp import MLP
from lowerbound.model.networks.network import Network, Ports
from lowerbound.model.spec import Share


class Masking(Network):
    """Another network whose input loses some of its values in training: as an encoder, a denoising model's.

    The bound stays one on the clean data, for only the posterior sees the masked input (Im et al. 2017). In evaluation
    nothing is masked. What is masked follows torch's generator, which training sets for every batch.

    Args:
        ports: shapes to connect.
        network: what sees the masked input.
        rate: share of values that are set to 0, or of tokens that are replaced by token 0.
    """

    takes_tokens = True  # where the network does

    def __init__(self, ports: Ports, *, network: Part[Network] = Part(MLP), rate: Share = 0.25) -> None:
        super().__init__(ports)
        self.network, self.rate = network(ports), rate

    def forward(self, inputs: Tensor, context: Tensor | None) -> Tensor:
        if self.training and self.rate:
            kept = torch.rand(inputs.shape, device=inputs.device) >= self.rate
            inputs = torch.where(kept, inputs, torch.zeros_like(inputs))
        result: Tensor = self.network(inputs, context)
        return result

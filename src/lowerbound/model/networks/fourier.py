"""Waves of a network's input beside the input, so that it learns fine structure soon."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lowerbound.kinds import Part
from lowerbound.model.networks.mlp import MLP
from lowerbound.model.networks.network import Network, Ports
from lowerbound.model.spec import Count, Positive


class FourierFeatures(Network):
    """Another network of x, sin(W x) and cos(W x), W random and fixed (Rahimi & Recht 2007; Tancik et al. 2020, eq. 4).

    A plain network learns what changes slowly first, and edges last, if ever: a critic of narrow modes and a generator
    that jumps from one to the next are made of edges.

    Args:
        ports: shapes to connect; inputs are seen flat.
        network: what sees the waves.
        waves: rows of W.
        scale: standard deviation of W's entries, in radians for each unit of the input.
    """

    frequencies: Tensor

    def __init__(
        self, ports: Ports, *, network: Part[Network] = Part(MLP), waves: Count = 64, scale: Positive = 3.0
    ) -> None:
        super().__init__(ports)
        size = math.prod(ports.inputs)
        self.register_buffer("frequencies", scale * torch.randn(size, waves))
        self.network = network(Ports((size + 2 * waves,), ports.outputs, ports.context))

    def forward(self, inputs: Tensor, context: Tensor | None) -> Tensor:
        flat = inputs.flatten(1)
        phases = flat @ self.frequencies
        result: Tensor = self.network(torch.cat([flat, phases.sin(), phases.cos()], dim=1), context)
        return result


def waves(values: Tensor, octaves: int) -> Tensor:
    """Sines, then cosines, of values (..., C), of periods 1, 1/2, 1/4, ...: (..., 2 C octaves)."""
    angles = (values[..., None] * 2 * torch.pi * 2.0 ** torch.arange(octaves).to(values)).flatten(-2)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)

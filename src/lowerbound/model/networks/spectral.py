"""A penalty on the largest singular values of weights, which bounds how fast a deep network's outputs can move."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class SpectralNorms(nn.Module):
    """The largest singular value of each weight matrix, by one step of power iteration per look.

    A convolution's kernel counts as the matrix of its first axis against the others (Vahdat & Kautz 2020, section 3.2;
    Yoshida & Miyato 2017, algorithm 1). The vectors of the iteration are buffers that move with `absorb` alone.

    Args:
        network: whose parameters named `weight`, of two axes or more, are looked at; it is not made a part of this.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        weights = dict(network.named_parameters())
        self.names = [name for name, value in weights.items() if name.endswith("weight") and value.ndim > 1]
        for index, name in enumerate(self.names):
            self.register_buffer(f"v{index}", functional.normalize(torch.randn(weights[name][0].numel()), dim=0))

    def forward(self, network: nn.Module) -> tuple[Tensor, dict[str, Tensor]]:
        """The singular values (L,), with gradient, and the statistics to absorb."""
        weights, values, statistics = dict(network.named_parameters()), [], {}
        for index, name in enumerate(self.names):
            matrix = weights[name].flatten(1)
            with torch.autocast(matrix.device.type, enabled=False):
                with torch.no_grad():
                    u = functional.normalize(matrix @ self.get_buffer(f"v{index}"), dim=0)
                    v = functional.normalize(u @ matrix, dim=0)
                values.append(u @ (matrix @ v))
            statistics[f"v{index}"] = v
        return torch.stack(values), statistics

    def absorb(self, statistics: dict[str, Tensor]) -> None:
        """Go on from the vectors of the last look, which may have been added up."""
        for name, value in statistics.items():
            self.get_buffer(name).copy_(functional.normalize(value, dim=0))

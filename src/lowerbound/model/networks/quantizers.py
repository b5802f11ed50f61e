"""Vector quantisers: the bottleneck of discrete latents."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn


class Quantized(NamedTuple):
    """What a quantiser returns.

    Attributes:
        vectors: codebook vectors, (N, D), with the straight-through gradient of eq. 3 in van den Oord et al. 2017.
        codes: their indices, (N,).
        commitment: squared distance of each input from its (fixed) vector, (N,).
        statistics: sums over rows to absorb.
    """

    vectors: Tensor
    codes: Tensor
    commitment: Tensor
    statistics: dict[str, Tensor]


class EMAQuantizer(nn.Module):
    """Nearest codebook vector; the codebook follows the mean of its inputs (van den Oord et al. 2017, appendix A.1).

    With moving averages there is no codebook loss. `forward` is pure: the counts and sums it returns are added over
    micro-batches and processes, and `absorb` is called once per step that is taken, so codes are identical everywhere.
    Runs in fp32 whatever the surrounding precision.

    Args:
        size: number of codes K.
        dimension: D.
        decay: of the moving averages.
    """

    codebook: Tensor
    counts: Tensor
    sums: Tensor

    def __init__(self, size: int, dimension: int, decay: float) -> None:
        super().__init__()
        self.decay = decay
        codebook = torch.randn(size, dimension)
        self.register_buffer("codebook", codebook)
        self.register_buffer("counts", torch.ones(size))
        self.register_buffer("sums", codebook.clone())

    def forward(self, inputs: Tensor) -> Quantized:
        """Quantise (N, D)."""
        h = inputs.to(self.codebook.dtype)
        with torch.autocast(h.device.type, enabled=False):
            codes = self.nearest(h.detach())
        vectors = self.codebook[codes]
        size = self.codebook.shape[0]
        statistics = {
            "counts": h.new_zeros(size).index_add(0, codes, torch.ones_like(codes, dtype=h.dtype)),
            "sums": torch.zeros_like(self.codebook).index_add(0, codes, h.detach()),
        }
        commitment = (h - vectors.detach()).square().sum(dim=1)
        return Quantized(h + (vectors - h).detach(), codes, commitment, statistics)

    def nearest(self, vectors: Tensor) -> Tensor:
        """Index of the nearest code of each row: arg max of h.c - |c|^2 / 2, one matrix product."""
        scores = torch.addmm(-0.5 * self.codebook.square().sum(dim=1), vectors, self.codebook.T)
        return scores.argmax(dim=1)

    def absorb(self, statistics: dict[str, Tensor]) -> None:
        """Move the codebook by one step's sums."""
        self.counts.lerp_(statistics["counts"], 1 - self.decay)
        self.sums.lerp_(statistics["sums"], 1 - self.decay)
        total, size = self.counts.sum(), len(self.counts)
        smoothed = (self.counts + 1e-5) / (total + size * 1e-5) * total
        self.codebook.copy_(self.sums / smoothed[:, None])

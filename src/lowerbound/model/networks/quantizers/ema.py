"""A codebook that follows the mean of its inputs."""

from __future__ import annotations

import torch
from torch import Tensor

from lowerbound.kinds import Part
from lowerbound.model.networks.quantizers.passing import Passing, StraightThrough
from lowerbound.model.networks.quantizers.quantizer import (
    Quantized,
    Quantizer,
    Usage,
    count,
    full_precision,
    nearest,
    squared_distance,
)
from lowerbound.model.networks.quantizers.renewal import Renewal
from lowerbound.model.spec import Count, Fraction, Share
from lowerbound.noise import Noise


class EMACodebook(Quantizer):
    """Nearest code; codes are moving averages of the vectors that chose them (van den Oord et al. 2017, appendix A.1).

    There is no codebook loss. The squared distance of a vector from its code is the penalty "commitment" (their eq. 3
    weighs it 0.25).

    Args:
        size: number of codes.
        dimension: of a code.
        decay: of the moving averages.
        start: whether the codes start as k-means of the first batch.
        restart: a code used less than this share of the mean moves to a vector of the batch; 0 lets codes die.
        passing: how the gradient passes.
    """

    codebook: Tensor
    counts: Tensor
    sums: Tensor

    def __init__(
        self,
        *,
        size: Count = 512,
        dimension: Count = 64,
        decay: Fraction = 0.99,
        start: bool = True,
        restart: Share = 0.03,
        passing: Part[Passing] = Part(StraightThrough),
    ) -> None:
        super().__init__()
        self.size, self.inputs, self.dimension, self.decay = size, dimension, dimension, decay
        self.passing, self.renewal, self.usage = passing(), Renewal(start, restart), Usage(size)
        codebook = torch.randn(size, dimension)
        self.register_buffer("codebook", codebook)
        self.register_buffer("counts", torch.ones(size))
        self.register_buffer("sums", codebook.clone())

    def forward(self, h: Tensor, noise: Noise | None, samples: int = 1) -> Quantized:
        with full_precision(h):
            h = h.to(self.codebook.dtype)
            codes = nearest(self.codebook, h.detach())
            vectors = self.lookup(codes)
            penalties = {"commitment": squared_distance(h, vectors)}
            statistics = self._statistics(h.detach(), codes, noise) if self.training and noise is not None else {}
            return Quantized(self.passing(h, vectors), codes, None, penalties, statistics)

    def lookup(self, codes: Tensor) -> Tensor:
        return torch.nn.functional.embedding(codes, self.codebook)

    def absorb(self, statistics: dict[str, Tensor]) -> None:
        self.usage.absorb(statistics["counts"])
        self.counts.lerp_(statistics["counts"], 1 - self.decay)
        self.sums.lerp_(statistics["sums"], 1 - self.decay)
        total = self.counts.sum()
        smoothed = (self.counts + 1e-5) / (total + self.size * 1e-5) * total
        self.codebook.copy_(self.sums / smoothed[:, None])
        codes, vectors, counts = self.renewal.renew(self.counts, statistics)
        self.codebook[codes] = vectors
        self.counts[codes] = counts
        self.sums[codes] = counts[:, None] * vectors

    def vitals(self) -> dict[str, Tensor]:
        return self.usage.vitals()

    def _statistics(self, h: Tensor, codes: Tensor, noise: Noise) -> dict[str, Tensor]:
        sums = torch.zeros_like(self.codebook).index_add(0, codes.flatten(), h.reshape(-1, self.dimension))
        counts = count(codes, self.size, h)
        return {"counts": counts, "sums": sums, **self.renewal.candidates(h, self.counts, noise)}

"""Codebooks that learn by gradients."""

from __future__ import annotations

import torch
from torch import Tensor, nn

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
from lowerbound.model.spec import Count, Positive, Share
from lowerbound.noise import Noise

DECAY = 0.99  # of the moving counts that say which codes are dead


class GradientCodebook(Quantizer):
    """Nearest code; codes learn by the penalty "codebook", |vector - code|^2 (van den Oord et al. 2017, eq. 3).

    The penalty "commitment" is the same number, and moves the encoder: they weigh it 0.25, and "codebook" 1.

    Args:
        size: number of codes.
        dimension: of a code.
        start: whether the codes start as k-means of the first batch.
        restart: a code used less than this share of the mean moves to a vector of the batch; 0 lets codes die.
        passing: how the gradient passes.
    """

    counts: Tensor

    def __init__(
        self,
        *,
        size: Count = 512,
        dimension: Count = 64,
        start: bool = True,
        restart: Share = 0.03,
        passing: Part[Passing] = Part(StraightThrough),
    ) -> None:
        super().__init__()
        self.size, self.inputs, self.dimension = size, dimension, dimension
        self.passing, self.renewal, self.usage = passing(), Renewal(start, restart), Usage(size)
        self.codebook = nn.Parameter(torch.randn(size, dimension))
        self.register_buffer("counts", torch.ones(size))

    def forward(self, h: Tensor, noise: Noise | None, samples: int = 1) -> Quantized:
        with full_precision(h):
            h = h.to(self.codebook.dtype)
            codes, vectors, penalties = learn(self.codebook, h)
            statistics = {}
            if self.training and noise is not None:
                statistics = {"counts": count(codes, self.size, h), **self.renewal.candidates(h, self.counts, noise)}
            return Quantized(self.passing(h, vectors), codes, None, penalties, statistics)

    def lookup(self, codes: Tensor) -> Tensor:
        return nn.functional.embedding(codes, self.codebook)

    def absorb(self, statistics: dict[str, Tensor]) -> None:
        self.usage.absorb(statistics["counts"])
        self.counts.lerp_(statistics["counts"], 1 - DECAY)
        codes, vectors, counts = self.renewal.renew(self.counts, statistics)
        self.codebook.data[codes] = vectors
        self.counts[codes] = counts

    def vitals(self) -> dict[str, Tensor]:
        return self.usage.vitals()


class SimVQ(Quantizer):
    """Nearest code of a frozen random codebook seen through one learned linear map (Zhu et al. 2024, eq. 7).

    The map moves all codes at once, so none is left behind. Penalties are those of a gradient codebook.

    Args:
        size: number of codes.
        dimension: of a code.
        passing: how the gradient passes.
    """

    basis: Tensor

    def __init__(
        self, *, size: Count = 512, dimension: Count = 64, passing: Part[Passing] = Part(StraightThrough)
    ) -> None:
        super().__init__()
        self.size, self.inputs, self.dimension = size, dimension, dimension
        self.passing, self.usage = passing(), Usage(size)
        self.register_buffer("basis", torch.randn(size, dimension))
        self.map = nn.Linear(dimension, dimension, bias=False)

    def forward(self, h: Tensor, noise: Noise | None, samples: int = 1) -> Quantized:
        with full_precision(h):
            h = h.to(self.basis.dtype)
            codes, vectors, penalties = learn(self.map(self.basis), h)
            statistics = {"counts": count(codes, self.size, h)} if self.training and noise is not None else {}
            return Quantized(self.passing(h, vectors), codes, None, penalties, statistics)

    def lookup(self, codes: Tensor) -> Tensor:
        return nn.functional.embedding(codes, self.map(self.basis))

    def absorb(self, statistics: dict[str, Tensor]) -> None:
        self.usage.absorb(statistics["counts"])

    def vitals(self) -> dict[str, Tensor]:
        return self.usage.vitals()


class GumbelSoftmax(Quantizer):
    """Codes are drawn from the encoder's logits; the gradient is that of a softmax (Jang et al. 2017, section 2.2).

    The encoder gives K logits at every position. The decoder sees the vector of the code that was drawn, so the bound
    is one; its gradient is biased, less so at a low temperature, where it varies more. The rate is log K less the
    posterior's entropy.

    Args:
        size: number of codes.
        dimension: of a code.
        temperature: of the softmax that the gradient takes.
    """

    certain = False

    def __init__(self, *, size: Count = 512, dimension: Count = 64, temperature: Positive = 1.0) -> None:
        super().__init__()
        self.size, self.inputs, self.dimension, self.temperature = size, size, dimension, temperature
        self.codebook = nn.Parameter(torch.randn(size, dimension))
        self.usage = Usage(size)

    def forward(self, h: Tensor, noise: Noise | None, samples: int = 1) -> Quantized:
        with full_precision(h):
            logits = h.to(self.codebook.dtype)
            if noise is None:
                codes = logits.argmax(dim=-1)[None]
                return Quantized(self.lookup(codes), codes, logits, {}, {})
            drawn = logits + noise.child("codes").gumbel(samples, logits.shape[1:]).to(logits.dtype)
            codes = drawn.argmax(dim=-1)
            soft = (drawn / self.temperature).softmax(dim=-1)
            hard = nn.functional.one_hot(codes, self.size).to(soft.dtype)
            statistics = {"counts": count(codes, self.size, logits) / samples} if self.training else {}
            return Quantized((hard + (soft - soft.detach())) @ self.codebook, codes, logits, {}, statistics)

    def lookup(self, codes: Tensor) -> Tensor:
        return nn.functional.embedding(codes, self.codebook)

    def absorb(self, statistics: dict[str, Tensor]) -> None:
        self.usage.absorb(statistics["counts"])

    def vitals(self) -> dict[str, Tensor]:
        return self.usage.vitals()


def learn(codebook: Tensor, h: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Nearest codes, their vectors, and the penalties that move codes to vectors and vectors to codes."""
    codes = nearest(codebook.detach(), h.detach())
    vectors = nn.functional.embedding(codes, codebook)
    penalties = {
        "codebook": squared_distance(h.detach(), vectors),
        "commitment": squared_distance(h, vectors.detach()),
    }
    return codes, vectors, penalties

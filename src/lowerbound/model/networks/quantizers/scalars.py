"""Quantisers without a codebook: each channel is rounded on its own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from lowerbound.model.networks.quantizers.quantizer import (
    Quantized,
    Quantizer,
    Usage,
    count,
    full_precision,
    squared_distance,
)
from lowerbound.model.spec import Fraction, Positive
from lowerbound.noise import Noise

Levels = Annotated[Sequence[Annotated[int, Field(ge=2)]], Field(min_length=1)]
Bits = Annotated[int, Field(ge=1, le=20)]


class FSQ(Quantizer):
    """Finite scalar quantisation: a bounded channel is rounded to one of a few levels (Mentzer et al. 2023, eq. 1).

    It has no codebook to fall out of use, and no penalty. Where we differ: levels lie symmetrically on [-1, 1] for even
    numbers of them too, so that two levels work.

    Args:
        levels: of each channel; the number of codes is their product.
    """

    levels: Tensor
    places: Tensor

    def __init__(self, *, levels: Levels = (8, 5, 5, 5)) -> None:
        super().__init__()
        self.size, self.inputs, self.dimension = math.prod(levels), len(levels), len(levels)
        places = [math.prod(levels[:number]) for number in range(len(levels))]
        self.register_buffer("levels", torch.tensor(levels), persistent=False)
        self.register_buffer("places", torch.tensor(places), persistent=False)
        self.usage = Usage(self.size)

    def forward(self, h: Tensor, noise: Noise | None, samples: int = 1) -> Quantized:
        with full_precision(h):
            bounded = h.to(self.usage.last.dtype).tanh()
            half = (self.levels - 1) / 2
            digits = ((bounded.detach() + 1) * half).round().long()
            codes = (digits * self.places).sum(dim=-1)
            vectors = bounded + (self.lookup(codes) - bounded).detach()
            statistics = {"counts": count(codes, self.size, vectors)} if self.training and noise is not None else {}
            return Quantized(vectors, codes, None, {}, statistics)

    def lookup(self, codes: Tensor) -> Tensor:
        digits = codes[..., None] // self.places % self.levels
        return (2 * digits / (self.levels - 1) - 1).to(self.usage.last.dtype)

    def absorb(self, statistics: dict[str, Tensor]) -> None:
        self.usage.absorb(statistics["counts"])

    def vitals(self) -> dict[str, Tensor]:
        return self.usage.vitals()


class LFQ(Quantizer):
    """Lookup-free quantisation: the signs of the channels are the bits of the code (Yu et al. 2024, eq. 3-4).

    With p(c|h) the softmax of -|h - c|^2 / temperature, the penalty "entropy" is that of p, so that each vector is sure
    of its code, and "diversity" the negative entropy of its mean, so that all codes are used; they weigh both 0.1 and
    "commitment" 0.25. Where we differ: the mean in the logarithm is a moving average, which has the same gradient where
    it is right, and is the same for micro-batches and processes.

    Args:
        bits: channels; there are 2 to the power of it codes.
        temperature: of the softmax.
        decay: of the moving average.
    """

    share: Tensor
    places: Tensor

    def __init__(self, *, bits: Bits = 9, temperature: Positive = 1.0, decay: Fraction = 0.9) -> None:
        super().__init__()
        self.size, self.inputs, self.dimension = 2**bits, bits, bits
        self.temperature, self.decay = temperature, decay
        self.register_buffer("places", 2 ** torch.arange(bits), persistent=False)
        self.register_buffer("share", torch.full((self.size,), 1 / self.size))
        self.usage = Usage(self.size)

    def forward(self, h: Tensor, noise: Noise | None, samples: int = 1) -> Quantized:
        with full_precision(h):
            h = h.to(self.share.dtype)
            codes = ((h > 0) * self.places).sum(dim=-1)
            vectors = self.lookup(codes)
            # Distances to codes differ by 4 h per bit, so bits are independent, and codes need no matrix of their own.
            logits = 4 * h / self.temperature
            entropy = torch.sigmoid(logits) * -nn.functional.logsigmoid(logits)
            entropy = entropy + torch.sigmoid(-logits) * -nn.functional.logsigmoid(-logits)
            low, high = halves(logits)
            table = self.share.clamp_min(1e-10).log().reshape(high.shape[-1], low.shape[-1])
            penalties = {
                "commitment": squared_distance(h, vectors),
                "entropy": entropy.flatten(1).sum(dim=1),
                "diversity": ((high @ table) * low).flatten(1).sum(dim=1),
            }
            statistics = {}
            if self.training and noise is not None:
                mass = high.detach().flatten(0, -2).T @ low.detach().flatten(0, -2)
                statistics = {"counts": count(codes, self.size, h), "mass": mass.flatten()}
            return Quantized(h + (vectors - h).detach(), codes, None, penalties, statistics)

    def lookup(self, codes: Tensor) -> Tensor:
        return (2 * (codes[..., None] // self.places % 2) - 1).to(self.share.dtype)

    def absorb(self, statistics: dict[str, Tensor]) -> None:
        self.usage.absorb(statistics["counts"])
        self.share.lerp_(statistics["mass"] / statistics["mass"].sum(), 1 - self.decay)

    def vitals(self) -> dict[str, Tensor]:
        return self.usage.vitals()


def halves(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Probabilities of all values of the low half of the bits, and of the high half: their products are those of codes.

    Args:
        logits: of each bit, (*, D).

    Returns:
        (*, 2^(D // 2)) and (*, 2^(D - D // 2)); the value counts the lowest bit first.
    """
    split = logits.shape[-1] // 2
    return _product(logits[..., :split]), _product(logits[..., split:])


def _product(logits: Tensor) -> Tensor:
    on, off = torch.sigmoid(logits), torch.sigmoid(-logits)
    result = torch.ones_like(logits[..., :1].sum(dim=-1, keepdim=True))
    for bit in range(logits.shape[-1]):
        result = torch.cat([result * off[..., bit : bit + 1], result * on[..., bit : bit + 1]], dim=-1)
    return result

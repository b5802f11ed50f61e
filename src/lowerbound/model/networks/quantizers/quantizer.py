"""The interface of all quantisers, and how much of a codebook is in use."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lowerbound.model.spec import Shape
from lowerbound.noise import Noise

WINDOW = 100  # steps
ROWS = 2048  # of a block of scores; larger blocks leave the cache
SCORES = 2**22  # of a block


class Quantized(NamedTuple):
    """What a quantiser makes of vectors (B, *positions, inputs).

    Attributes:
        vectors: what the decoder sees, with a gradient: (B, *positions, D), or (S, B, *positions, D) of drawn codes.
        codes: integers, (B, *positions) or (B, depth, *positions); with S in front where they are drawn.
        logits: of the posterior over codes, (B, *positions, K), where it is not certain.
        penalties: terms for the objective to weigh by name, (B,), summed over positions.
        statistics: sums over rows to absorb; none outside training.
    """

    vectors: Tensor
    codes: Tensor
    logits: Tensor | None
    penalties: dict[str, Tensor]
    statistics: dict[str, Tensor]


class Quantizer(nn.Module, ABC):
    """From vectors to codes and back. Runs in fp32 whatever the surrounding precision.

    `forward` is pure: the sums that it returns are added over micro-batches and processes, and `absorb` is called once
    per step that is taken. So codebooks are identical on every process.

    Attributes:
        size: number of codes K.
        inputs: channels that the encoder gives at every position.
        dimension: channels D that the decoder gets at every position.
        depth: codes at every position, along an axis of their own before the positions; None for one without an axis.
        certain: whether codes are a function of the vectors; else they are drawn.
    """

    size: int
    inputs: int
    dimension: int
    depth: int | None = None
    certain: bool = True

    def grid(self, positions: Shape) -> Shape:
        """Shape of the codes of one row."""
        return positions if self.depth is None else (self.depth, *positions)

    @abstractmethod
    def forward(self, h: Tensor, noise: Noise | None, samples: int = 1) -> Quantized:
        """Quantise vectors (B, *positions, inputs); without noise nothing is drawn and nothing is to be absorbed."""

    @abstractmethod
    def lookup(self, codes: Tensor) -> Tensor:
        """The vectors (B, *positions, D) of codes."""

    @abstractmethod
    def absorb(self, statistics: dict[str, Tensor]) -> None:
        """Take in the sums of a step that was really taken."""

    @abstractmethod
    def vitals(self) -> dict[str, Tensor]:
        """Share of codes in use and their perplexity over the last steps, by name; empty before the first step."""


class Usage(nn.Module):
    """How often each code was used in the last 100 to 199 steps: a window in progress, and the one before.

    Args:
        size: number of codes.
    """

    current: Tensor
    last: Tensor
    steps: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("current", torch.zeros(size))
        self.register_buffer("last", torch.zeros(size))
        self.register_buffer("steps", torch.zeros(()))

    def absorb(self, counts: Tensor) -> None:
        """Take in one step's counts, (K,)."""
        self.current.add_(counts)
        self.steps.add_(1)
        full = self.steps >= WINDOW
        self.last.copy_(torch.where(full, self.current, self.last))
        self.current.masked_fill_(full, 0)
        self.steps.masked_fill_(full, 0)

    def vitals(self) -> dict[str, Tensor]:
        """Share of codes in use, and the exponential of the entropy of their use."""
        counts = self.current + self.last
        total = counts.sum()
        if total == 0:
            return {}
        share = counts / total
        entropy = -torch.special.xlogy(share, share).sum()
        return {"codebook_usage": (counts > 0).to(share.dtype).mean(), "codebook_perplexity": entropy.exp()}


def nearest(codebook: Tensor, vectors: Tensor) -> Tensor:
    """Index of the nearest code of each vector (*, D): arg max of h.c - |c|^2 / 2, a matrix product, block by block."""
    flat, bias = vectors.reshape(-1, vectors.shape[-1]), -0.5 * codebook.square().sum(dim=1)
    if torch.compiler.is_compiling():  # blocks would fix the number of rows
        codes = torch.addmm(bias, flat, codebook.T).argmax(dim=1)
    else:
        blocks = flat.split(max(1, min(ROWS, SCORES // len(codebook))))
        codes = torch.cat([torch.addmm(bias, block, codebook.T).argmax(dim=1) for block in blocks])
    return codes.reshape(vectors.shape[:-1])


def count(codes: Tensor, size: int, like: Tensor) -> Tensor:
    """How often each of `size` codes occurs, (K,), in the type of `like`."""
    return torch.bincount(codes.flatten(), minlength=size).to(like.dtype)


def squared_distance(one: Tensor, other: Tensor) -> Tensor:
    """Sum of squares over all but the rows, (B,)."""
    return (one - other).square().flatten(1).sum(dim=1)


def full_precision(h: Tensor) -> torch.autocast:
    """A context without autocast."""
    return torch.autocast(h.device.type, enabled=False)

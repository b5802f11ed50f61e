"""Encoders of short texts, trained from scratch with the model that is conditioned on them."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from lowerbound.model.networks.attention import AttentionBlock
from lowerbound.model.spec import Count, Share


class TextEncoder(nn.Module, ABC):
    """From word numbers (N, length), 0 for none, to features (N, tokens, width).

    A constructor takes the number of different words and the length from the assembly; its keyword arguments are the
    recipe's settings.

    Attributes:
        tokens, width: shape of the features of one text.
    """

    tokens: int
    width: int

    @abstractmethod
    def forward(self, words: Tensor) -> Tensor:
        """Apply the encoder."""


class AttentiveText(TextEncoder):
    """A few learned positions before the words, which they read by attention (Vaswani et al. 2017).

    Args:
        vocabulary: number of different words, that of none included.
        length: words in a text, at most.
        tokens: positions that are read out: what a network attends to, or sees side by side.
        width: of each position.
        depth: number of blocks.
        heads: of the attention; divides the width.
        dropout: share of hidden units that are set to 0 in training.
    """

    def __init__(
        self,
        vocabulary: int,
        length: int,
        *,
        tokens: Count = 4,
        width: Count = 32,
        depth: Count = 2,
        heads: Count = 4,
        dropout: Share = 0.0,
    ) -> None:
        super().__init__()
        self.tokens, self.width = tokens, width
        self.embedding = nn.Embedding(vocabulary, width)
        self.readers, self.place = (nn.Parameter(0.5 * torch.randn(count, width)) for count in (tokens, length))
        self.blocks = nn.Sequential(*(AttentionBlock(width, heads, dropout) for _ in range(depth)), nn.LayerNorm(width))

    def forward(self, words: Tensor) -> Tensor:
        seen = self.embedding(words) + self.place
        hidden = torch.cat([self.readers.expand(len(words), -1, -1), seen], dim=1)
        result: Tensor = self.blocks(hidden)[:, : self.tokens]
        return result


class RecurrentText(TextEncoder):
    """A bidirectional GRU over the words: one position for each of them, those of no word included.

    Args:
        vocabulary: number of different words, that of none included.
        length: words in a text, at most.
        width: of each position; even.
    """

    def __init__(self, vocabulary: int, length: int, *, width: Count = 32) -> None:
        super().__init__()
        self.tokens, self.width = length, 2 * (width // 2)
        self.embedding = nn.Embedding(vocabulary, self.width)
        self.recurrent = nn.GRU(self.width, self.width // 2, batch_first=True, bidirectional=True)

    def forward(self, words: Tensor) -> Tensor:
        hidden: Tensor = self.recurrent(self.embedding(words))[0]
        return hidden

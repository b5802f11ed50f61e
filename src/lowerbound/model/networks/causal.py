"""A transformer over a sequence of tokens in which each sees those before it (Vaswani et al. 2017)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from lowerbound.model.networks.attention import AttentionBlock

look_back = partial(scaled_dot_product_attention, is_causal=True)  # at itself and those before


class Kept:
    """Keys and values of the positions that one layer has seen, so that a further one costs a single row.

    Args:
        length: of the whole sequence.
    """

    def __init__(self, length: int) -> None:
        self.length, self.count = length, 0
        self.keys, self.values = torch.empty(0), torch.empty(0)

    def look(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """What the next position, (N, heads, 1, D) each, sees of itself and all before it."""
        if not self.count:
            shape = (*keys.shape[:2], self.length, keys.shape[3])
            self.keys, self.values = keys.new_empty(shape), values.new_empty(shape)
        self.keys[:, :, self.count], self.values[:, :, self.count] = keys[:, :, 0], values[:, :, 0]
        self.count += 1
        return scaled_dot_product_attention(queries, self.keys[:, :, : self.count], self.values[:, :, : self.count])


class CausalTransformer(nn.Module):
    """From tokens (N, T) to logits (N, T, K): those at t depend on tokens before t and on the context.

    Args:
        vocabulary: K.
        length: T.
        context: width of what every position may depend on besides; 0 for nothing.
        width: of each position.
        depth: number of blocks.
        heads: of the attention; divides the width.
        dropout: share of units that are set to 0 in training.
    """

    def __init__(
        self, vocabulary: int, length: int, context: int, width: int, depth: int, heads: int, dropout: float
    ) -> None:
        super().__init__()
        self.length = length
        self.embedding = nn.Embedding(vocabulary + 1, width)  # the last row is the start of a sequence
        self.place = nn.Parameter(0.5 * torch.randn(length, width))
        self.known = nn.Linear(context, width, bias=False) if context else None
        self.blocks = nn.ModuleList(AttentionBlock(width, heads, dropout) for _ in range(depth))
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, vocabulary))
        self.start = vocabulary

    def forward(self, tokens: Tensor, h: Tensor | None) -> Tensor:
        """Logits of every position, given tokens (N, T) and context features (N, C)."""
        before = torch.cat([torch.full_like(tokens[:, :1], self.start), tokens[:, :-1]], dim=1)
        hidden = self._embed(before, slice(None), h)
        for block in self.blocks:
            hidden = block(hidden, look_back)
        logits: Tensor = self.head(hidden)
        return logits

    def unroll(self, tokens: Tensor, h: Tensor | None) -> Iterator[Tensor]:
        """Logits (N, K) of one position after the other; the caller writes each token into `tokens` before the next."""
        kept = [Kept(self.length) for _ in self.blocks]
        before = torch.full_like(tokens[:, :1], self.start)
        for index in range(self.length):
            hidden = self._embed(before, slice(index, index + 1), h)
            for block, past in zip(self.blocks, kept, strict=True):
                hidden = block(hidden, past.look)
            yield self.head(hidden)[:, 0]
            before = tokens[:, index : index + 1]

    def _embed(self, before: Tensor, places: slice, h: Tensor | None) -> Tensor:
        hidden: Tensor = self.embedding(before.long()) + self.place[places]
        return hidden if self.known is None or h is None else hidden + self.known(h).unsqueeze(1)

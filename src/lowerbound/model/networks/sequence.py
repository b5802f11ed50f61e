"""Networks over sequences of tokens."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lowerbound.errors import ShapeError
from lowerbound.model.networks.network import Network, Ports, with_context
from lowerbound.model.spec import Count


class TokenEncoder(Network):
    """A bidirectional GRU over tokens (N, T), read out at both ends.

    Args:
        ports: from token sequences (T,) of a known vocabulary to any shape.
        width: size of embeddings and of each direction's state.
    """

    takes_tokens = True

    def __init__(self, ports: Ports, *, width: Count = 64) -> None:
        super().__init__(ports)
        if ports.vocabulary is None or len(ports.inputs) != 1:
            raise ShapeError(
                f"a token encoder needs sequences of integers with a known vocabulary, and was given rows of shape "
                f"{list(ports.inputs)}; use it with text data."
            )
        self.embedding = nn.Embedding(ports.vocabulary, width)
        self.recurrent = nn.GRU(width, width, batch_first=True, bidirectional=True)
        self.head = nn.Linear(2 * width + ports.context, math.prod(ports.outputs))

    def forward(self, inputs: Tensor, context: Tensor | None) -> Tensor:
        _, state = self.recurrent(self.embedding(inputs.long()))
        hidden = torch.cat([state[0], state[1]], dim=1)
        result: Tensor = self.head(with_context(hidden, context))
        return result.unflatten(1, self.outputs)


class CausalTokens(nn.Module):
    """A GRU language model given features: logits of token t depend on tokens before t and on the features.

    The features enter at every step (not only as the first state), so that they are not forgotten.

    Args:
        vocabulary: K.
        features: F.
        width: size of embeddings and state.
        word_dropout: share of earlier tokens that are hidden in training (Bowman et al. 2016): with less to go on, the
            model needs the features.
    """

    def __init__(self, vocabulary: int, features: int, width: int, word_dropout: float = 0.0) -> None:
        super().__init__()
        self.word_dropout = word_dropout
        self.embedding = nn.Embedding(vocabulary + 1, width)  # the last row is the start of a sequence
        self.recurrent = nn.GRU(width + features, width, batch_first=True)
        self.head = nn.Linear(width + features, vocabulary)
        self.start = vocabulary

    def forward(self, tokens: Tensor, features: Tensor) -> Tensor:
        """Tokens (N, T) and features (N, F) to logits (N, T, K)."""
        before = torch.cat([torch.full_like(tokens[:, :1], self.start), tokens[:, :-1]], dim=1)
        every_step = features.unsqueeze(1).expand(-1, tokens.shape[1], -1)
        hidden, _ = self.recurrent(torch.cat([self._seen(before), every_step], dim=2))
        logits: Tensor = self.head(torch.cat([hidden, every_step], dim=2))
        return logits

    def _seen(self, before: Tensor) -> Tensor:
        """Embeddings of earlier tokens, (N, T, W); zeros where one is hidden, never for the start."""
        embedded: Tensor = self.embedding(before.long())
        if not self.training or not self.word_dropout:
            return embedded
        kept = torch.rand(before.shape, device=before.device) >= self.word_dropout
        return embedded * (kept | (before == self.start)).unsqueeze(2)

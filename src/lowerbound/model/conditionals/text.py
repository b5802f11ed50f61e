"""A likelihood of text that keeps the latents in use."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from lowerbound.model.conditionals.conditional import Features, Slot, in_float
from lowerbound.model.conditionals.likelihoods import Likelihood
from lowerbound.model.conditionals.preparation import Tokens
from lowerbound.model.distributions.autoregressive import AutoregressiveTokens
from lowerbound.model.networks.sequence import CausalTokens
from lowerbound.model.spec import Context, Count, Share


class BagOfWords(Likelihood):
    """An autoregressive likelihood of tokens, with a penalty of the tokens given the features alone (Zhao et al. 2017).

    The penalty "bag_of_words" is -sum_t log softmax(f(features))[x_t], in nats: it does not know the order and sees no
    earlier token, so that it lowers only what the latents say. It belongs to no bound. Padding is not counted.

    Args:
        slot: the data's place.
        features: width of the decoder's features.
        width: of the language model's embeddings and state.
        word_dropout: share of earlier tokens that the language model does not see in training; 0.1 to 0.2 is usual.
    """

    def __init__(self, slot: Slot, *, features: Count = 32, width: Count = 64, word_dropout: Share = 0.0) -> None:
        super().__init__()
        self.preparation = Tokens(slot.data)
        self.features_shape, self.length = (features,), slot.event[0]
        assert slot.data.levels is not None
        self.padding = 0 if slot.data.vocabulary else None
        self.network = CausalTokens(slot.data.levels, features, width, word_dropout)
        self.bag = nn.Linear(features, slot.data.levels)

    def forward(self, features: Features, context: Context | None) -> Distribution:
        return AutoregressiveTokens(in_float(features), self.network, self.length)

    def penalties(self, features: Tensor, x: Tensor) -> dict[str, Tensor]:
        log_p = torch.log_softmax(self.bag(features).float(), dim=-1)
        each = log_p.gather(-1, x.long().expand(*log_p.shape[:-1], self.length))
        if self.padding is not None:
            each = each * (x != self.padding)
        return {"bag_of_words": -each.sum(dim=-1)}

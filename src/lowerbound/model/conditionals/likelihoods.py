"""Likelihoods p(x|z): from the decoder's features to a distribution of data, with the preparation of raw rows."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Distribution

from lowerbound.errors import ShapeError
from lowerbound.model.conditionals.conditional import Conditional, Features, Slot, in_float, softly_bounded
from lowerbound.model.conditionals.preparation import Binary, Preparation, Scaling, Tokens, real_numbers
from lowerbound.model.distributions.autoregressive import AutoregressiveTokens
from lowerbound.model.distributions.tree import diagonal_normal, independent
from lowerbound.model.networks.sequence import CausalTokens
from lowerbound.model.spec import Context, Count, Fraction, Positive, Share

# Log variances of data: a density of real numbers is unbounded as sigma goes to 0, so sigma stays above 1e-3.
LOGVAR_RANGE = (-14.0, 30.0)


class Likelihood(Conditional):
    """A distribution of prepared data given features.

    Attributes:
        preparation: from raw rows to x.
    """

    preparation: Preparation

    def statistics(self, px: Distribution, x: Tensor) -> dict[str, Tensor]:
        """Sums over rows that `absorb` needs; none for most."""
        return {}

    def absorb(self, statistics: dict[str, Tensor]) -> None:
        """Take in the statistics of one step."""

    def penalties(self, features: Tensor, x: Tensor) -> dict[str, Tensor]:
        """Auxiliary terms of features (*batch, *features_shape) and x by name, (*batch), nats; none for most."""
        return {}


class BernoulliLikelihood(Likelihood):
    """Independent binary pixels; features are logits.

    Args:
        slot: the data's place.
        binarisation: "dynamic" (anew at each use) or "threshold".
    """

    def __init__(self, slot: Slot, *, binarisation: Literal["dynamic", "threshold"] = "dynamic") -> None:
        super().__init__()
        self.preparation = Binary(slot.data, binarisation)
        self.features_shape = slot.event

    def forward(self, features: Features, context: Context | None) -> Distribution:
        assert self.features_shape is not None
        return independent(Bernoulli(logits=in_float(features), validate_args=False), len(self.features_shape))


class FixedGaussian(Likelihood):
    """N(features, sigma^2 I) with a given sigma.

    Squared error plus KL is the negative ELBO only for sigma^2 = 1/2: prefer a learned or optimal sigma.

    Args:
        slot: the data's place.
        sigma: standard deviation on the scale of x.
        scaling: "none", or "standard" to learn a mean and a scale per channel from the training rows.
    """

    logvar: Tensor

    def __init__(self, slot: Slot, *, sigma: Positive = 1.0, scaling: Scaling = "none") -> None:
        super().__init__()
        self.preparation = real_numbers(slot.data, scaling)
        self.features_shape = slot.event
        self.register_buffer("logvar", 2 * torch.tensor(sigma).log())

    def forward(self, features: Features, context: Context | None) -> Distribution:
        assert self.features_shape is not None
        return diagonal_normal(in_float(features), self.logvar, len(self.features_shape))


class LearnedGaussian(Likelihood):
    """N(features, sigma^2) with sigma a parameter, one for all values or one per channel.

    Args:
        slot: the data's place.
        per: "scalar" or "channel" (a column, for vectors).
        scaling: "none", or "standard" to learn a mean and a scale per channel from the training rows.
    """

    def __init__(self, slot: Slot, *, per: Literal["scalar", "channel"] = "scalar", scaling: Scaling = "none") -> None:
        super().__init__()
        self.preparation = real_numbers(slot.data, scaling)
        self.features_shape = slot.event
        channels = slot.event[0] if per == "channel" else 1
        self.raw_logvar = nn.Parameter(torch.zeros(channels, *(1,) * (len(slot.event) - 1)))

    def forward(self, features: Features, context: Context | None) -> Distribution:
        assert self.features_shape is not None
        return diagonal_normal(
            in_float(features), softly_bounded(self.raw_logvar, *LOGVAR_RANGE), len(self.features_shape)
        )


class PixelGaussian(Likelihood):
    """N(mu, sigma^2) with both from the decoder, one sigma per value.

    Args:
        slot: the data's place.
        scaling: "none", or "standard" to learn a mean and a scale per channel from the training rows.
    """

    def __init__(self, slot: Slot, *, scaling: Scaling = "none") -> None:
        super().__init__()
        self.preparation = real_numbers(slot.data, scaling)
        self.event_ndim = len(slot.event)
        self.features_shape = (2 * slot.event[0], *slot.event[1:])

    def forward(self, features: Features, context: Context | None) -> Distribution:
        mu, raw = in_float(features).chunk(2, dim=-self.event_ndim)
        return diagonal_normal(mu, softly_bounded(raw, *LOGVAR_RANGE), self.event_ndim)


class OptimalGaussian(Likelihood):
    """N(features, sigma^2 I) with sigma^2 the mean squared error, in closed form (Rybkin et al. 2021).

    The error is averaged over steps in a buffer and never taken from the batch at hand: a density that depends on its
    own batch is no bound, and an answer would depend on its batch-mates.

    Args:
        slot: the data's place.
        decay: of the moving average; early steps use the plain mean.
        scaling: "none", or "standard" to learn a mean and a scale per channel from the training rows.
    """

    variance: Tensor
    steps: Tensor

    def __init__(self, slot: Slot, *, decay: Fraction = 0.98, scaling: Scaling = "none") -> None:
        super().__init__()
        self.preparation = real_numbers(slot.data, scaling)
        self.features_shape = slot.event
        self.decay = decay
        self.register_buffer("variance", torch.ones(()))
        self.register_buffer("steps", torch.zeros(()))

    def forward(self, features: Features, context: Context | None) -> Distribution:
        assert self.features_shape is not None
        return diagonal_normal(in_float(features), self.variance.log(), len(self.features_shape))

    def statistics(self, px: Distribution, x: Tensor) -> dict[str, Tensor]:
        error = (px.mean.detach() - x).square()
        samples = error.numel() // x.numel()
        return {"squared_error": error.sum() / samples, "values": error.new_tensor(float(x.numel()))}

    def absorb(self, statistics: dict[str, Tensor]) -> None:
        weight = torch.clamp_min(1 / (self.steps + 1), 1 - self.decay)
        error = statistics["squared_error"] / statistics["values"]
        self.variance.lerp_(error.clamp_min(1e-8), weight)
        self.steps.add_(1)


class TokenLikelihood(Likelihood):
    """An autoregressive likelihood of token sequences (Bowman et al. 2016): strong enough to ignore z if z is dear.

    Args:
        slot: the data's place.
        features: width of the decoder's features.
        width: of the language model's embeddings and state.
        word_dropout: share of earlier tokens that the language model does not see in training; 0.1 to 0.2 is usual.
    """

    def __init__(self, slot: Slot, *, features: Count = 32, width: Count = 64, word_dropout: Share = 0.0) -> None:
        super().__init__()
        self.preparation = Tokens(slot.data)
        if len(slot.event) != 1:
            raise ShapeError(f"a likelihood of tokens describes sequences, and a row has shape {list(slot.event)}.")
        self.features_shape = (features,)
        self.length = slot.event[0]
        assert slot.data.levels is not None
        self.network = CausalTokens(slot.data.levels, features, width, word_dropout)

    def forward(self, features: Features, context: Context | None) -> Distribution:
        return AutoregressiveTokens(in_float(features), self.network, self.length)

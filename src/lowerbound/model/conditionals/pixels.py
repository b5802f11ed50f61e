"""Likelihoods of values on a bounded scale: intensities in [0, 1] and integer levels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution

from lowerbound.errors import ShapeError
from lowerbound.model.conditionals.conditional import Features, Slot, in_float, softly_bounded
from lowerbound.model.conditionals.likelihoods import Likelihood
from lowerbound.model.conditionals.preparation import Intensities, Levels, Tokens
from lowerbound.model.distributions.continuous_bernoulli import ContinuousBernoulli
from lowerbound.model.distributions.logistic_mixture import LogisticMixture, PixelLogisticMixture
from lowerbound.model.distributions.pixel_categorical import PixelCategorical
from lowerbound.model.distributions.tree import independent
from lowerbound.model.spec import Context, Count

# Log scales of logistic densities on [-1, 1]: from well below a step of 8 bits to flat.
LOG_SCALE_RANGE = (-7.0, 5.0)


class ContinuousBernoulliLikelihood(Likelihood):
    """Independent intensities in [0, 1] (Loaiza-Ganem & Cunningham 2019); features are logits.

    The binary cross-entropy of grey pixels with its normaliser. Integers are dequantised, so that their bits per
    dimension are a bound; real-valued data must lie in [0, 1].

    Args:
        slot: the data's place.
    """

    def __init__(self, slot: Slot) -> None:
        super().__init__()
        self.preparation = Intensities(slot.data)
        self.features_shape = slot.event

    def forward(self, features: Features, context: Context | None) -> Distribution:
        assert self.features_shape is not None
        return independent(ContinuousBernoulli(in_float(features), validate_args=False), len(self.features_shape))


class LogisticMixtureLikelihood(Likelihood):
    """Independent integer levels, a mixture of discretised logistic densities each (Salimans et al. 2017, eq. 2).

    A probability of integers: nothing is dequantised, and bits per dimension need no Jacobian. Channels of a pixel are
    independent given z, and each has a mixture of its own; see `logistic-mixture-pixel` for the paper's.

    Args:
        slot: the data's place.
        components: of each value's mixture.
    """

    def __init__(self, slot: Slot, *, components: Count = 5) -> None:
        super().__init__()
        self.preparation = Levels(slot.data)
        self.levels, self.components, self.event_ndim = self.preparation.maximum + 1, components, len(slot.event)
        self.features_shape = (3 * components * slot.event[0], *slot.event[1:])
        # Without spread, all components would start equal and stay so.
        self.spread: torch.Tensor
        self.register_buffer("spread", torch.linspace(-1, 1, components + 2)[1:-1], persistent=False)

    def forward(self, features: Features, context: Context | None) -> Distribution:
        axis = -self.event_ndim
        parts = in_float(features).unflatten(axis, (3, self.components, -1)).movedim(axis - 1, -1)
        logits, loc, raw = parts.unbind(axis - 2)
        log_scale = softly_bounded(raw - 1, *LOG_SCALE_RANGE)
        mixture = LogisticMixture(logits, loc + self.spread, log_scale, self.levels, validate_args=False)
        return independent(mixture, self.event_ndim)


class PixelLogisticLikelihood(Likelihood):
    """A mixture of discretised logistic densities for each whole pixel: the channels share the component, and each
    follows those before it (Salimans et al. 2017, section 2.2).

    Args:
        slot: the data's place, images.
        components: of each pixel's mixture.
    """

    def __init__(self, slot: Slot, *, components: Count = 5) -> None:
        super().__init__()
        if len(slot.event) != 3:
            raise ShapeError(
                f"a mixture of whole pixels needs images (channels, height, width), and was given rows of shape "
                f"{list(slot.event)}; use `logistic-mixture`."
            )
        self.preparation = Levels(slot.data)
        channels = slot.event[0]
        self.levels, self.components = self.preparation.maximum + 1, components
        self.planes = [1, channels, channels, channels * (channels - 1) // 2]
        self.features_shape = (components * sum(self.planes), *slot.event[1:])
        self.spread: torch.Tensor
        self.register_buffer("spread", torch.linspace(-1, 1, components + 2)[1:-1], persistent=False)

    def forward(self, features: Features, context: Context | None) -> Distribution:
        parts = in_float(features).unflatten(-3, (self.components, -1)).movedim(-4, -1)
        logits, loc, raw, follow = parts.split(self.planes, dim=-4)
        log_scale = softly_bounded(raw - 1, *LOG_SCALE_RANGE)
        return PixelLogisticMixture(
            logits, loc + self.spread, log_scale, torch.tanh(follow), self.levels, validate_args=False
        )


class CategoricalLikelihood(Likelihood):
    """Independent integer levels, with a probability of its own for each level.

    Args:
        slot: the data's place.
        inputs: whether an encoder sees levels as "numbers" on [-1, 1], or as "tokens" (for the encoders of sequences).
    """

    def __init__(self, slot: Slot, *, inputs: Literal["numbers", "tokens"] = "numbers") -> None:
        super().__init__()
        self.levels, self.event_ndim = Levels(slot.data).maximum + 1, len(slot.event)
        self.preparation = Tokens(slot.data) if inputs == "tokens" else Levels(slot.data)
        self.features_shape = (slot.event[0] * self.levels, *slot.event[1:])

    def forward(self, features: Features, context: Context | None) -> Distribution:
        axis = -self.event_ndim
        logits = in_float(features).unflatten(axis, (-1, self.levels)).movedim(axis, -1)
        return independent(Categorical(logits=logits, validate_args=False), self.event_ndim)


class PixelCategoricalLikelihood(Likelihood):
    """A probability of its own for each level of each channel, given the channels before it in the pixel.

    Pixels are independent given their features; within one, the paper's order of channels (van den Oord et al. 2016,
    section 2.1). For images of one channel it is "categorical" with one more layer.

    Args:
        slot: the data's place, images.
        features: width of what is known of a pixel.
        inputs: whether an encoder sees levels as "numbers" on [-1, 1], or as "tokens" (codes of a quantiser).
    """

    def __init__(self, slot: Slot, *, features: Count = 64, inputs: Literal["numbers", "tokens"] = "numbers") -> None:
        super().__init__()
        if len(slot.event) != 3:
            raise ShapeError(
                f"a probability of whole pixels needs images (channels, height, width), and was given rows of shape "
                f"{list(slot.event)}; use `categorical`."
            )
        levels = Levels(slot.data).maximum + 1
        self.preparation = Tokens(slot.data) if inputs == "tokens" else Levels(slot.data)
        self.channels, self.features_shape = slot.event[0], (features, *slot.event[1:])
        self.heads = ChannelHeads(self.channels, features, levels)

    def forward(self, features: Features, context: Context | None) -> Distribution:
        return PixelCategorical(in_float(features), self.heads, self.channels)


class ChannelHeads(nn.Module):
    """Logits of a channel from a pixel's features and the levels of earlier channels.

    Args:
        channels: C.
        features: F.
        levels: K.
    """

    def __init__(self, channels: int, features: int, levels: int) -> None:
        super().__init__()
        self.seen = nn.ModuleList(nn.Embedding(levels, features) for _ in range(channels - 1))
        self.heads = nn.ModuleList(nn.Linear(features, levels) for _ in range(channels))

    def forward(self, features: Tensor, before: Sequence[Tensor]) -> Tensor:
        """Features (*batch, H, W, F) and earlier channels (*batch, H, W) each, to logits (*batch, H, W, K)."""
        hidden = features.to(next(self.parameters()).dtype)
        for table, level in zip(self.seen, before, strict=False):
            hidden = hidden + table(level)
        logits: Tensor = self.heads[len(before)](torch.nn.functional.silu(hidden))
        return logits.to(features.dtype)

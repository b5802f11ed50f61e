"""Likelihoods of counts (Lopez et al. 2018, scVI): no library size, which a context may carry."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from lowerbound.model.conditionals.conditional import Features, Slot, in_float, softly_bounded
from lowerbound.model.conditionals.likelihoods import Likelihood
from lowerbound.model.conditionals.preparation import Counts
from lowerbound.model.distributions.counts import NegativeBinomial, ZeroInflatedNegativeBinomial
from lowerbound.model.distributions.tree import independent
from lowerbound.model.spec import Context

# Log means of counts, and logs of their dispersion (a parameter r: variance m + m^2 / r).
LOG_MEAN_RANGE = (-12.0, 16.0)
LOG_DISPERSION_RANGE = (-8.0, 10.0)


class NegativeBinomialLikelihood(Likelihood):
    """Independent negative binomial counts; features are log means, the dispersion is a parameter per channel.

    Args:
        slot: the data's place.
    """

    def __init__(self, slot: Slot) -> None:
        super().__init__()
        self.preparation = Counts(slot.data)
        self.features_shape = slot.event
        self.raw_log_dispersion = _dispersion(slot)

    def forward(self, features: Features, context: Context | None) -> Distribution:
        assert self.features_shape is not None
        counts = negative_binomial(in_float(features), self.raw_log_dispersion)
        return independent(counts, len(self.features_shape))


class ZeroInflatedLikelihood(Likelihood):
    """Independent negative binomial counts with extra zeros; features are log means and logits of the extra zeros.

    Args:
        slot: the data's place.
    """

    def __init__(self, slot: Slot) -> None:
        super().__init__()
        self.preparation = Counts(slot.data)
        self.event_ndim = len(slot.event)
        self.features_shape = (2 * slot.event[0], *slot.event[1:])
        self.raw_log_dispersion = _dispersion(slot)

    def forward(self, features: Features, context: Context | None) -> Distribution:
        raw, zero_logits = in_float(features).chunk(2, dim=-self.event_ndim)
        counts = negative_binomial(raw, self.raw_log_dispersion)
        inflated = ZeroInflatedNegativeBinomial(
            zero_logits, counts.log_mean, counts.log_dispersion, validate_args=False
        )
        return independent(inflated, self.event_ndim)


def negative_binomial(raw_log_mean: Tensor, raw_log_dispersion: Tensor) -> NegativeBinomial:
    """Counts from unbounded logs of mean and dispersion, which are bounded softly."""
    return NegativeBinomial(
        softly_bounded(raw_log_mean, *LOG_MEAN_RANGE),
        softly_bounded(raw_log_dispersion, *LOG_DISPERSION_RANGE),
        validate_args=False,
    )


def _dispersion(slot: Slot) -> nn.Parameter:
    return nn.Parameter(torch.zeros(slot.event[0], *(1,) * (len(slot.event) - 1)))

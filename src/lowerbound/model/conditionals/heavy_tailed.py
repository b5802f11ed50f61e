"""Likelihoods of real numbers with heavier tails than a Gaussian's: less moved by outliers."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import nn
from torch.distributions import Distribution, Laplace, StudentT
from torch.nn.functional import softplus

from lowerbound.model.conditionals.conditional import Features, Slot, in_float, softly_bounded
from lowerbound.model.conditionals.likelihoods import Likelihood
from lowerbound.model.conditionals.preparation import Scaling, real_numbers
from lowerbound.model.distributions import heavy_tailed as _rows  # noqa: F401 (registers the densities)
from lowerbound.model.distributions.tree import independent
from lowerbound.model.spec import Context

LOG_SCALE_RANGE = (-7.0, 15.0)
# Degrees of freedom stay above this, so that the variance exists; a Gaussian has infinitely many.
LEAST_DF = 2.0


class LaplaceLikelihood(Likelihood):
    """p(x) = exp(-|x - features| / b) / (2 b) with b a parameter: absolute instead of squared errors.

    Args:
        slot: the data's place.
        per: "scalar" or "channel" (a column, for vectors).
        scaling: "none", or "standard" to learn a mean and a scale per channel from the training rows.
    """

    def __init__(self, slot: Slot, *, per: Literal["scalar", "channel"] = "scalar", scaling: Scaling = "none") -> None:
        super().__init__()
        self.preparation = real_numbers(slot.data, scaling)
        self.features_shape = slot.event
        self.raw_log_scale = _per(slot, per)

    def forward(self, features: Features, context: Context | None) -> Distribution:
        assert self.features_shape is not None
        scale = softly_bounded(self.raw_log_scale, *LOG_SCALE_RANGE).exp()
        return independent(Laplace(in_float(features), scale, validate_args=False), len(self.features_shape))


class StudentLikelihood(Likelihood):
    """Student's t around the features, its scale and its degrees of freedom parameters; these stay above 2.

    Args:
        slot: the data's place.
        per: "scalar" or "channel" (a column, for vectors), for the scale; the degrees of freedom are one number.
        scaling: "none", or "standard" to learn a mean and a scale per channel from the training rows.
    """

    def __init__(self, slot: Slot, *, per: Literal["scalar", "channel"] = "scalar", scaling: Scaling = "none") -> None:
        super().__init__()
        self.preparation = real_numbers(slot.data, scaling)
        self.features_shape = slot.event
        self.raw_log_scale = _per(slot, per)
        self.raw_df = nn.Parameter(torch.tensor(math.log(math.expm1(3.0))))  # 5 degrees of freedom at the start

    def forward(self, features: Features, context: Context | None) -> Distribution:
        assert self.features_shape is not None
        scale = softly_bounded(self.raw_log_scale, *LOG_SCALE_RANGE).exp()
        df = LEAST_DF + softplus(self.raw_df)
        return independent(StudentT(df, in_float(features), scale, validate_args=False), len(self.features_shape))


def _per(slot: Slot, per: Literal["scalar", "channel"]) -> nn.Parameter:
    channels = slot.event[0] if per == "channel" else 1
    return nn.Parameter(torch.zeros(channels, *(1,) * (len(slot.event) - 1)))

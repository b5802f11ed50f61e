"""Posteriors q(z|x): from the encoder's features to a distribution of codes."""

from __future__ import annotations

from torch.distributions import Distribution

from lowerbound.model.conditionals.conditional import Conditional, Features, Slot, in_float, softly_bounded
from lowerbound.model.distributions.delta import Delta
from lowerbound.model.distributions.tree import diagonal_normal
from lowerbound.model.spec import Context

# Log variances of latents: sigma from 3e-7, the deterministic limit, to 150, beyond which fp16 decoders overflow.
LOGVAR_RANGE = (-30.0, 10.0)


class Posterior(Conditional):
    """A distribution of latents given features."""


class DiagonalGaussian(Posterior):
    """N(mu, diag(sigma^2)); features are mu and a raw log variance, stacked along the channel axis.

    The log variance is bounded softly to (-30, 10), sigma to (3e-7, 150): wide enough for the deterministic limit.
    Also the prior of a lower group in a hierarchy, where a network supplies the features.
    Kingma & Welling 2014, eq. 9.

    Args:
        slot: the latent's place.
    """

    def __init__(self, slot: Slot) -> None:
        super().__init__()
        self.event_ndim = len(slot.event)
        self.features_shape = (2 * slot.event[0], *slot.event[1:])

    def forward(self, features: Features, context: Context | None) -> Distribution:
        mu, raw = in_float(features).chunk(2, dim=-self.event_ndim)
        return diagonal_normal(mu, softly_bounded(raw, *LOGVAR_RANGE), self.event_ndim)


class Deterministic(Posterior):
    """All mass at the features: the code of a plain or adversarial autoencoder. It has no rate, hence no bound."""

    def __init__(self, slot: Slot) -> None:
        super().__init__()
        self.event_ndim = len(slot.event)
        self.features_shape = slot.event

    def forward(self, features: Features, context: Context | None) -> Distribution:
        return Delta(in_float(features), self.event_ndim)

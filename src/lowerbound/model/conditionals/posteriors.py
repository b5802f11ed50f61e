"""Posteriors q(z|x): from the encoder's features to a distribution of codes."""

from __future__ import annotations

import math

import torch
from torch.distributions import Distribution

from lowerbound.errors import ShapeError
from lowerbound.kinds import Part
from lowerbound.model.conditionals.conditional import Conditional, Features, Slot, in_float, softly_bounded
from lowerbound.model.distributions.delta import Delta
from lowerbound.model.distributions.flow import Flow
from lowerbound.model.distributions.full_normal import FullNormal
from lowerbound.model.distributions.tree import diagonal_normal
from lowerbound.model.distributions.von_mises_fisher import VonMisesFisher
from lowerbound.model.networks.bijections.autoregressive import InverseAutoregressive
from lowerbound.model.networks.bijections.bijection import Bijection, Chain, Place
from lowerbound.model.networks.bijections.couplings import Coupling
from lowerbound.model.networks.mlp import MLP
from lowerbound.model.networks.network import Network
from lowerbound.model.spec import Context, Count, Shape, Widths

# Log variances of latents: sigma from 3e-7, the deterministic limit, to 150, beyond which fp16 decoders overflow.
LOGVAR_RANGE = (-30.0, 10.0)
# Log concentrations on the sphere, to either side of 1: from nearly uniform to 8,100.
LOG_CONCENTRATION_RANGE = (-3.0, 9.0)


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


class FullGaussian(Posterior):
    """N(mu, L L^T) with a covariance for every pair of units (Kingma & Welling 2019, section 2.5).

    Features are mu, raw log variances and D (D - 1) / 2 more, flat: L = diag(sigma) (I + strictly lower part), so that
    the encoder's last layer grows with the square of D. Better where the true posterior's units are correlated.

    Args:
        slot: the latent's place.
    """

    def __init__(self, slot: Slot) -> None:
        super().__init__()
        self.event, self.size = slot.event, math.prod(slot.event)
        self.features_shape = (self.size * (self.size + 3) // 2,)

    def forward(self, features: Features, context: Context | None) -> Distribution:
        mu, raw, lower = in_float(features).split([self.size, self.size, self.size * (self.size - 1) // 2], dim=-1)
        sigma = torch.exp(0.5 * softly_bounded(raw, *LOGVAR_RANGE))
        rows, columns = torch.tril_indices(self.size, self.size, -1, device=lower.device)
        unit = torch.eye(self.size, dtype=mu.dtype, device=mu.device).expand(*mu.shape, self.size).clone()
        unit[..., rows, columns] = lower
        return FullNormal(mu.unflatten(-1, self.event), sigma.unsqueeze(-1) * unit)


class FlowPosterior(Posterior):
    """A diagonal Gaussian pushed through a bijection that also sees features of the row.

    Features are mu, a raw log variance and what the bijection sees, flat.

    Args:
        event: shape of the latent.
        bijection: over the flattened latent.
        features: how many numbers the bijection sees of the row.
    """

    def __init__(self, event: Shape, bijection: Bijection, features: int) -> None:
        super().__init__()
        self.event, self.size, self.bijection = event, math.prod(event), bijection
        self.features_shape = (2 * self.size + features,)

    def forward(self, features: Features, context: Context | None) -> Distribution:
        known = in_float(features)
        mu, raw = known[..., : self.size], known[..., self.size : 2 * self.size]
        logvar = softly_bounded(raw, *LOGVAR_RANGE)
        base = diagonal_normal(mu.unflatten(-1, self.event), logvar.unflatten(-1, self.event), len(self.event))
        return Flow(base, known[..., 2 * self.size :], self.bijection)


class AutoregressiveFlow(FlowPosterior):
    """Inverse autoregressive flow: every step moves all units, each by those before it (Kingma et al. 2016, alg. 1).

    Args:
        slot: the latent's place.
        steps: of the flow; the order of units is reversed at every other.
        widths: of the masked network of each step.
        features: how many numbers the flow sees of the row.
    """

    def __init__(self, slot: Slot, *, steps: Count = 2, widths: Widths = (64, 64), features: Count = 16) -> None:
        chain = [InverseAutoregressive(Place(slot.event, features, step), widths=widths) for step in range(steps)]
        super().__init__(slot.event, Chain(chain), features)


class CouplingFlow(FlowPosterior):
    """A flow of coupling layers: half of the units say how the others move (Dinh et al. 2017, eq. 7-8).

    Weaker per step than the autoregressive one, and as fast to score as to draw.

    Args:
        slot: the latent's place, of two units at least.
        steps: coupling layers; the half that moves alternates.
        network: of each layer.
        features: how many numbers the flow sees of the row.
    """

    def __init__(
        self,
        slot: Slot,
        *,
        steps: Count = 4,
        network: Part[Network] = Part(MLP, widths=[64]),
        features: Count = 16,
    ) -> None:
        chain = [Coupling(Place(slot.event, features, step), network=network) for step in range(steps)]
        super().__init__(slot.event, Chain(chain), features)


class Hyperspherical(Posterior):
    """The von Mises-Fisher density on the unit sphere of the flattened latent (Davidson et al. 2018, section 3).

    Features are a direction, normalised to length 1, and a raw log concentration, bounded softly. It goes with the
    prior "uniform-sphere", against which the rate is closed and cannot be lowered by moving codes, or with "vamp".

    Args:
        slot: the latent's place, of two units at least.
    """

    def __init__(self, slot: Slot) -> None:
        super().__init__()
        self.event, self.size = slot.event, math.prod(slot.event)
        if self.size < 2:
            raise ShapeError("a sphere needs two units at least, and the latent has one; use the posterior `gaussian`.")
        self.features_shape = (self.size + 1,)

    def forward(self, features: Features, context: Context | None) -> Distribution:
        known = in_float(features)
        direction = known[..., : self.size] + 1e-12  # a vector of zeros has no direction
        mu = direction / torch.linalg.vector_norm(direction, dim=-1, keepdim=True)
        concentration = softly_bounded(known[..., self.size], *LOG_CONCENTRATION_RANGE).exp()
        return VonMisesFisher(mu.unflatten(-1, self.event), concentration)


class Deterministic(Posterior):
    """All mass at the features: the code of a plain or adversarial autoencoder. It has no rate, hence no bound."""

    def __init__(self, slot: Slot) -> None:
        super().__init__()
        self.event_ndim = len(slot.event)
        self.features_shape = slot.event

    def forward(self, features: Features, context: Context | None) -> Distribution:
        return Delta(in_float(features), self.event_ndim)

"""Priors p(z), and densities of data: distributions that need no features."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution, Independent, MixtureSameFamily

from lowerbound.errors import ShapeError
from lowerbound.kinds import Part
from lowerbound.model.conditionals.conditional import Conditional, Features, Slot
from lowerbound.model.conditionals.denoiser import NoiseNetwork, check_guidance
from lowerbound.model.conditionals.posteriors import DiagonalGaussian
from lowerbound.model.conditionals.preparation import Continuous, Preparation
from lowerbound.model.distributions.autoregressive_mixture import AutoregressiveMixture
from lowerbound.model.distributions.diffusing.bounds import Bound, ContinuousTime
from lowerbound.model.distributions.diffusing.predictions import Prediction, PredictNoise
from lowerbound.model.distributions.diffusing.samplers import Ancestral, Sampler
from lowerbound.model.distributions.diffusing.schedules import LogLinear, NoiseSchedule
from lowerbound.model.distributions.diffusion import DiffusionDensity, Process
from lowerbound.model.distributions.flow import Flow
from lowerbound.model.distributions.ring import Ring
from lowerbound.model.distributions.tree import diagonal_normal
from lowerbound.model.distributions.von_mises_fisher import SphereUniform
from lowerbound.model.networks.bijections.autoregressive import MaskedMLP
from lowerbound.model.networks.bijections.bijection import Bijection, Chain, Place
from lowerbound.model.networks.bijections.couplings import Coupling
from lowerbound.model.networks.mlp import MLP
from lowerbound.model.networks.network import Network, Ports
from lowerbound.model.spec import Context, Count, DataSpec, Positive, Widths


class Prior(Conditional):
    """A distribution of latents before any data are seen."""

    def inputs(self) -> Tensor | None:
        """Rows of data, (K, *event), whose posterior the family passes as features; None for most priors."""
        return None

    def prepares(self, data: DataSpec) -> Preparation:
        """The way from raw rows to what it describes, where it stands at the place of the data."""
        return Continuous(data)


class StandardNormal(Prior):
    """N(0, I)."""

    zeros: Tensor

    def __init__(self, slot: Slot) -> None:
        super().__init__()
        self.register_buffer("zeros", torch.zeros(slot.event), persistent=False)

    def forward(self, features: Features, context: Context | None) -> Distribution:
        return diagonal_normal(self.zeros, self.zeros, self.zeros.ndim)


class UniformSphere(Prior):
    """The uniform density on the unit sphere, for the posterior "von-mises-fisher" (Davidson et al. 2018, section 3).

    Args:
        slot: the latent's place.
    """

    zeros: Tensor

    def __init__(self, slot: Slot) -> None:
        super().__init__()
        self.register_buffer("zeros", torch.zeros(slot.event), persistent=False)

    def forward(self, features: Features, context: Context | None) -> Distribution:
        return SphereUniform(self.zeros)


class RingPrior(Prior):
    """Codes at about one distance from the origin, in all directions alike: a ring in the plane, else a shell.

    Args:
        slot: the latent's place.
        radius: mean distance.
        width: standard deviation of the distance.
    """

    radius: Tensor
    width: Tensor

    def __init__(self, slot: Slot, *, radius: Positive = 2.0, width: Positive = 0.2) -> None:
        super().__init__()
        self.event = torch.Size(slot.event)
        self.register_buffer("radius", torch.tensor(radius), persistent=False)
        self.register_buffer("width", torch.tensor(width), persistent=False)

    def forward(self, features: Features, context: Context | None) -> Distribution:
        return Ring(self.radius, self.width, self.event)


class FlowPrior(Prior):
    """A learned diagonal Gaussian pushed through bijections (Rezende & Mohamed 2015, eq. 5; Chen et al. 2017).

    Where the data have a context the flow sees it, so that it is p(z|c).

    Args:
        slot: the place of the variable.
        steps: how many bijections, one after another.
        bijection: each of them.
    """

    def __init__(self, slot: Slot, *, steps: Count = 8, bijection: Part[Bijection] = Part(Coupling)) -> None:
        super().__init__()
        context, self.conditional = slot.data.context_features, bool(slot.data.context)
        self.mu, self.logvar = nn.Parameter(torch.zeros(slot.event)), nn.Parameter(torch.zeros(slot.event))
        self.bijection = Chain([bijection(Place(slot.event, context, step)) for step in range(steps)])

    def forward(self, features: Features, context: Context | None) -> Distribution:
        known = known_context(context, self.conditional)
        rows = () if known is None else (len(known),)
        mu, logvar = (value.expand(*rows, *value.shape) for value in (self.mu, self.logvar))
        return Flow(diagonal_normal(mu, logvar, self.mu.ndim), known, self.bijection)


class AutoregressivePrior(Prior):
    """p(z) = prod_d p(z_d | z_<d), each factor a mixture of Gaussians: one pass to score, D to draw.

    Where the data have a context every factor sees it, so that it is p(z|c). Germain et al. 2015; Chen et al. 2017.

    Args:
        slot: the place of the variable.
        components: of each mixture.
        widths: of the masked network.
    """

    def __init__(self, slot: Slot, *, components: Count = 5, widths: Widths = (64, 64)) -> None:
        super().__init__()
        self.event, self.conditional = torch.Size(slot.event), bool(slot.data.context)
        self.network = MaskedMLP(math.prod(slot.event), 3 * components, slot.data.context_features, widths)
        last = self.network.layers[-1]
        assert isinstance(last, nn.Linear)
        with torch.no_grad():  # means apart from one another, so that components do not start as one
            last.bias.view(-1, 3, components)[:, 1] += torch.linspace(-1, 1, components) if components > 1 else 0.0

    def forward(self, features: Features, context: Context | None) -> Distribution:
        return AutoregressiveMixture(known_context(context, self.conditional), self.network, self.event)


def known_context(context: Context | None, conditional: bool) -> Tensor | None:
    """What a conditional prior sees of the context, (B, C); None for an unconditional one."""
    if not conditional:
        return None
    if context is None:
        raise ShapeError("this model is conditional: give it a context (labels).")
    return context.features()


class GaussianMixture(Prior):
    """A learned mixture of diagonal Gaussians with learned weights.

    Args:
        slot: the latent's place.
        components: K.
        spread: standard deviation of the initial means.
    """

    def __init__(self, slot: Slot, *, components: Count = 10, spread: Positive = 1.0) -> None:
        super().__init__()
        self.event_ndim = len(slot.event)
        self.logits = nn.Parameter(torch.zeros(components))
        self.mu = nn.Parameter(spread * torch.randn(components, *slot.event))
        self.logvar = nn.Parameter(torch.zeros(components, *slot.event))

    def forward(self, features: Features, context: Context | None) -> Distribution:
        return MixtureSameFamily(
            Categorical(logits=self.logits, validate_args=False),
            diagonal_normal(self.mu, self.logvar, self.event_ndim),
            validate_args=False,
        )


class VampPrior(Prior):
    """The mixture of the posteriors of K learned pseudo-inputs (Tomczak & Welling 2018, eq. 9).

    Args:
        slot: the latent's place.
        components: K.
    """

    def __init__(self, slot: Slot, *, components: Count = 500) -> None:
        super().__init__()
        self.pseudo_inputs = nn.Parameter(0.5 + 0.1 * torch.randn(components, *slot.data.event))

    def inputs(self) -> Tensor:
        return self.pseudo_inputs

    def forward(self, features: Features, context: Context | None) -> Distribution:
        assert isinstance(features, Distribution)
        logits = self.pseudo_inputs.new_zeros(self.pseudo_inputs.shape[0])
        return MixtureSameFamily(Categorical(logits=logits, validate_args=False), features, validate_args=False)


class ContextGaussian(Prior):
    """p(z|c): a diagonal Gaussian whose moments a network computes from the context (Sohn et al. 2015).

    Args:
        slot: the latent's place.
        network: from context features to the moments.
    """

    def __init__(self, slot: Slot, *, network: Part[Network] = Part(MLP, widths=[64])) -> None:
        super().__init__()
        if not slot.data.context:
            raise ShapeError(
                'prior "context" needs data with a context (labels), and these data have none; use prior "standard".'
            )
        self.gaussian = DiagonalGaussian(slot)
        assert self.gaussian.features_shape is not None
        self.network = network(Ports((slot.data.context_features,), self.gaussian.features_shape))

    def forward(self, features: Features, context: Context | None) -> Distribution:
        known = known_context(context, conditional=True)
        assert known is not None
        return self.gaussian(self.network(known, None), context)


class UniformCodes(Prior):
    """The uniform distribution over K codes at every position; its rate is log K per position.

    Args:
        slot: the place of the codes, whose levels they are.
    """

    logits: Tensor

    def __init__(self, slot: Slot) -> None:
        super().__init__()
        if slot.event != slot.data.event or slot.data.levels is None:
            raise ShapeError('the prior "uniform-codes" is one of codes; use it with the family `vq-vae`.')
        self.register_buffer("logits", torch.zeros(*slot.event, slot.data.levels), persistent=False)

    def forward(self, features: Features, context: Context | None) -> Distribution:
        return Independent(
            Categorical(logits=self.logits, validate_args=False), self.logits.ndim - 1, validate_args=False
        )


class Diffusion(Prior):
    """A diffusion model; see `DiffusionDensity`. Where the data have a context the network sees it.

    Args:
        slot: the place of the variable (data in a `Density` family, latents as a prior).
        network: from the noisy variable, Fourier features of the time and the context.
        schedule: of the noise.
        prediction: what the network predicts.
        bound: on log p(x).
        sampler, steps: how rows are drawn.
        guidance: how far draws go from what the network says without the context (0) to what it says with it (1), and
            beyond; 1 is none.
        frequencies: number of Fourier frequencies of time.
    """

    def __init__(
        self,
        slot: Slot,
        *,
        network: Part[Network] = Part(MLP, widths=[128, 128]),
        schedule: NoiseSchedule = LogLinear(),
        prediction: Prediction = PredictNoise(),
        bound: Bound = ContinuousTime(),
        sampler: Sampler = Ancestral(),
        steps: Count = 100,
        guidance: float = 1.0,
        frequencies: Count = 6,
    ) -> None:
        super().__init__()
        self.conditional = bool(slot.data.context)
        check_guidance(guidance, self.conditional)
        context = slot.data.context_features
        self.denoiser = NoiseNetwork(slot.event, context, network, prediction, frequencies, bound.channels)
        self.process = Process(torch.Size(slot.event), schedule, bound, sampler, steps, guidance)

    def forward(self, features: Features, context: Context | None) -> DiffusionDensity:
        return DiffusionDensity(None, known_context(context, self.conditional), self.denoiser, self.process)

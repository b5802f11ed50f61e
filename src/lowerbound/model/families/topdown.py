"""A hierarchy of latents generated from the top down (Sonderby et al. 2016; Vahdat & Kautz 2020; Child 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Self

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.distributions import Distribution

from lowerbound.kinds import Part
from lowerbound.model.conditionals.conditional import Slot, in_float
from lowerbound.model.conditionals.likelihoods import BernoulliLikelihood, Likelihood
from lowerbound.model.conditionals.posteriors import DiagonalGaussian
from lowerbound.model.conditionals.preparation import Preparation
from lowerbound.model.distributions import tree
from lowerbound.model.evidence import Evidence, Latent, Statistics
from lowerbound.model.families.family import Family, Latents, apply
from lowerbound.model.networks.mlp import MLP
from lowerbound.model.networks.network import Network, Ports
from lowerbound.model.networks.spectral import SpectralNorms
from lowerbound.model.spec import Context, Count, DataSpec, Shape, Widths
from lowerbound.noise import Noise


class Group(nn.Module):
    """One group of a hierarchy: p(z|d), q(z|d, h), and how z changes the state d.

    The posterior is a shift and scale of the prior, so that the encoder says only what differs and a residual of zeros
    costs nothing (Vahdat & Kautz 2020, eq. 2-3; raw log variances are added before they are bounded, where the paper
    multiplies sigmas).

    Args:
        data: facts about the data.
        latent: shape of the group.
        before: shape of the state that comes from the group above.
        state: shape of the group's state d and of the encoder's features h.
        network: kind of the group's networks.
        depth: number of groups, by whose root changes of the state are divided (Child 2021, section 3.2).
    """

    def __init__(
        self, data: DataSpec, latent: Shape, before: Shape, state: Shape, network: Part[Network], depth: int
    ) -> None:
        super().__init__()
        self.gaussian = DiagonalGaussian(Slot(latent, data))
        moments = self.gaussian.features_shape or latent
        c = data.context_features
        self.axis, self.scale = -len(state), depth**-0.5
        self.entrance = nn.ModuleList([] if before == state else [network(Ports(before, state, c))])
        self.p_network = network(Ports(state, moments, c))
        self.q_network = network(Ports((2 * state[0], *state[1:]), moments, c))
        self.inlet = nn.Linear(latent[0], state[0])
        self.update = network(Ports(state, state, c))

    def enter(self, d: Tensor, context: Context | None) -> Tensor:
        """The state of the group above as this group's: the same, unless its shape is another."""
        for network in self.entrance:
            d = apply(network, d, context)  # type: ignore[arg-type]  # ModuleList forgets the type of its items
        return d

    def p(self, d: Tensor, context: Context | None) -> Distribution:
        """The prior given the state (*batch, B, *state)."""
        result: Distribution = self.gaussian(apply(self.p_network, d, context), context)
        return result

    def q_and_p(self, d: Tensor, h: Tensor, context: Context | None) -> tuple[Distribution, Distribution]:
        """The posterior given the state (*batch, B, *state) and the encoder's features (B, *state), and the prior."""
        both = torch.cat([d, h.expand(d.shape)], dim=self.axis)
        prior = in_float(apply(self.p_network, d, context))
        residual = in_float(apply(self.q_network, both, context))
        return self.gaussian(prior + residual, context), self.gaussian(prior, context)

    def next(self, d: Tensor, z: Tensor, context: Context | None) -> Tensor:
        """The state after z, which enters by a linear map of its own: beside the state, few units would go unheard."""
        d = d + self.inlet(z.movedim(self.axis, -1)).movedim(-1, self.axis)
        return d + self.scale * apply(self.update, d, context)


class TopDown(Family):
    """p(z_1) prod_l p(z_l | z_<l) p(x|z): priors of lower groups depend on the draws above them, posteriors also on x.

    Groups are vectors, or grids of latents at any resolutions, coarse to fine.

    Args:
        data: facts about the data.
        latents: shape of each group, top first: units, or channels and grid.
        encoders: from x to features, then from features to features, one per group, bottom first.
        groups: one per group, top first.
        decoder, likelihood: from the last state to the data.
        width: size of the states, or their channels on grids.
        spectral: weight of the sum of the largest singular values of all weights, 0 for none.
    """

    roles = {"encoder": ("encoders",), "decoder": ("groups", "decoder", "likelihood", "start")}  # noqa: RUF012
    beyond_codes = ("decoder", "likelihood", "spectral")

    def __init__(
        self,
        data: DataSpec,
        latents: dict[str, Shape],
        encoders: Sequence[Network],
        groups: Sequence[Group],
        decoder: Network,
        likelihood: Likelihood,
        width: int,
        spectral: float,
    ) -> None:
        super().__init__()
        self.data, self.latents = data, latents
        self.encoders, self.groups = nn.ModuleList(encoders), nn.ModuleList(groups)
        self.decoder, self.likelihood = decoder, likelihood
        self.start = nn.Parameter(torch.randn(width, *next(iter(latents.values()))[1:]))
        self.weight = spectral
        if spectral:
            self.spectral = SpectralNorms(self)

    @classmethod
    def assemble(
        cls,
        data: DataSpec,
        *,
        latents: Annotated[Sequence[Count | Widths], Field(min_length=1)] = (8, 16),
        width: Count = 128,
        encoder: Part[Network] = Part(MLP, widths=[128]),
        network: Part[Network] = Part(MLP, widths=[128]),
        decoder: Part[Network] = Part(MLP, widths=[128]),
        likelihood: Part[Likelihood] = Part(BernoulliLikelihood),
        spectral: Annotated[float, Field(ge=0)] = 0.0,
    ) -> Self:
        """Give each part its shapes and put them together; an encoder's networks and a group's are of one kind."""
        px = likelihood(Slot(data.event, data))
        c = data.context_features
        shapes: list[Shape] = [(latent,) if isinstance(latent, int) else tuple(latent) for latent in latents]
        states: list[Shape] = [(width, *shape[1:]) for shape in shapes]
        encoders = [encoder(Ports(px.preparation.inputs_shape, states[-1], c, px.preparation.vocabulary))]
        encoders += [network(Ports(below, above, c)) for above, below in reversed(list(pairwise(states)))]
        groups = [
            Group(data, shape, before, state, network, len(shapes))
            for shape, before, state in zip(shapes, [states[0], *states[:-1]], states, strict=True)
        ]
        out = decoder(Ports(states[-1], px.features_shape or data.event, c))
        named = {f"z{index + 1}": shape for index, shape in enumerate(shapes)}
        return cls(data, named, encoders, groups, out, px, width, spectral)

    @property
    def preparation(self) -> Preparation:
        return self.likelihood.preparation

    def evidence(self, x: Tensor, context: Context | None, noise: Noise, samples: int = 1) -> Evidence:
        d = self.start.expand(samples, x.shape[0], *self.start.shape)
        latents = {}
        for name, group, h in self._levels(x, context):
            d = group.enter(d, context)
            q, p = group.q_and_p(d, h, context)
            latents[name] = Latent.drawn(q, p, noise.child(name), samples)
            d = group.next(d, latents[name].z, context)
        g = apply(self.decoder, d, context)
        px = tree.attach(self.likelihood(g, context), noise.child("likelihood"))
        penalties, statistics = self._regularity(samples, x.shape[0])
        return Evidence(
            x=x,
            context=context,
            distortion=-px.log_prob(x),
            latents=latents,
            penalties={**self.likelihood.penalties(g, x), **penalties},
            px=px,
            anchor=g,
            statistics={"likelihood": self.likelihood.statistics(px, x), **statistics},
            exact=tree.is_exact(px),
        )

    def encode(self, x: Tensor, context: Context | None = None, noise: Noise | None = None) -> Latents:
        d = self.start.expand(x.shape[0], *self.start.shape)
        codes: Latents = {}
        for name, group, h in self._levels(x, context):
            d = group.enter(d, context)
            q, _ = group.q_and_p(d, h, context)
            codes[name] = tree.point(q) if noise is None else tree.draw(q, noise.child(name))[0][0]
            d = group.next(d, codes[name], context)
        return codes

    def at_point(self, x: Tensor, context: Context | None = None) -> dict[str, Latent]:
        d = self.start.expand(x.shape[0], *self.start.shape)
        latents = {}
        for name, group, h in self._levels(x, context):
            d = group.enter(d, context)
            latents[name] = Latent.at_point(*group.q_and_p(d, h, context))
            d = group.next(d, latents[name].z[0], context)
        return latents

    def decode(self, latents: Latents, context: Context | None = None) -> Distribution:
        d = self.start.expand(next(iter(latents.values())).shape[0], *self.start.shape)
        for name, group in zip(self.latents, self._groups, strict=True):
            d = group.next(group.enter(d, context), latents[name], context)
        return self._px(d, context)

    def sample(self, noise: Noise, context: Context | None = None) -> Distribution:
        d = self.start.expand(noise.rows, *self.start.shape)
        for name, group in zip(self.latents, self._groups, strict=True):
            d = group.enter(d, context)
            z = tree.draw(group.p(d, context), noise.child(name))[0][0]
            d = group.next(d, z, context)
        return self._px(d, context)

    @property
    def _groups(self) -> list[Group]:
        return list(self.groups)  # type: ignore[arg-type]  # ModuleList forgets the type of its items

    def _levels(self, x: Tensor, context: Context | None) -> list[tuple[str, Group, Tensor]]:
        """Name, group and encoder's features, top group first."""
        features = [self.preparation.inputs(x)]
        for encoder in self.encoders:
            features.append(apply(encoder, features[-1], context))  # type: ignore[arg-type]
        return list(zip(self.latents, self._groups, reversed(features[1:]), strict=True))

    def _regularity(self, samples: int, rows: int) -> tuple[dict[str, Tensor], Statistics]:
        """The penalty of the weights by name, (S, B), and what its estimate absorbs; nothing without one."""
        if not self.weight:
            return {}, {}
        values, statistics = self.spectral(self)
        return {"spectral": (self.weight * values.sum()).expand(samples, rows)}, {"spectral": statistics}

    def _px(self, d: Tensor, context: Context | None) -> Distribution:
        px: Distribution = self.likelihood(apply(self.decoder, d, context), context)
        return px

"""A hierarchy of latents generated from the top down (Sonderby et al. 2016; Child 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from lowerbound.kinds import Part
from lowerbound.model.conditionals.conditional import Slot
from lowerbound.model.conditionals.likelihoods import BernoulliLikelihood, Likelihood
from lowerbound.model.conditionals.posteriors import DiagonalGaussian
from lowerbound.model.conditionals.preparation import Preparation
from lowerbound.model.distributions import tree
from lowerbound.model.evidence import Evidence, Latent
from lowerbound.model.families.family import Family, Latents, apply
from lowerbound.model.networks.mlp import MLP
from lowerbound.model.networks.network import Network, Ports
from lowerbound.model.spec import Context, Count, DataSpec, Shape
from lowerbound.noise import Noise


class Group(nn.Module):
    """One group of a hierarchy: p(z|d), q(z|d, h), and how z changes the state d.

    Args:
        data: facts about the data.
        latent: shape of the group.
        width: size of the state d and of the encoder's features h.
        network: kind of the group's networks.
    """

    def __init__(self, data: DataSpec, latent: Shape, width: int, network: Part[Network]) -> None:
        super().__init__()
        self.gaussian = DiagonalGaussian(Slot(latent, data))
        moments = self.gaussian.features_shape or latent
        c = data.context_features
        self.p_network = network(Ports((width,), moments, c))
        self.q_network = network(Ports((2 * width,), moments, c))
        self.update = network(Ports(latent, (width,), c))

    def p(self, d: Tensor, context: Context | None) -> Distribution:
        """The prior given the state (*batch, B, width)."""
        result: Distribution = self.gaussian(apply(self.p_network, d, context), context)
        return result

    def q(self, d: Tensor, h: Tensor, context: Context | None) -> Distribution:
        """The posterior given the state (*batch, B, width) and the encoder's features (B, width)."""
        both = torch.cat([d, h.expand(d.shape)], dim=-1)
        result: Distribution = self.gaussian(apply(self.q_network, both, context), context)
        return result

    def next(self, d: Tensor, z: Tensor, context: Context | None) -> Tensor:
        """The state after z: a residual update, so that every group reaches the data by a short path."""
        return d + apply(self.update, z, context)


class TopDown(Family):
    """p(z_1) prod_l p(z_l | z_<l) p(x|z): priors of lower groups depend on the draws above them, posteriors also on x.

    Args:
        data: facts about the data.
        latents: shape of each group, top first.
        encoders: from x to features, then from features to features, one per group, bottom first.
        groups: one per group, top first.
        decoder, likelihood: from the last state to the data.
        width: size of the state.
    """

    roles = {"encoder": ("encoders",), "decoder": ("groups", "decoder", "likelihood", "start")}  # noqa: RUF012

    def __init__(
        self,
        data: DataSpec,
        latents: dict[str, Shape],
        encoders: Sequence[Network],
        groups: Sequence[Group],
        decoder: Network,
        likelihood: Likelihood,
        width: int,
    ) -> None:
        super().__init__()
        self.data, self.latents = data, latents
        self.encoders, self.groups = nn.ModuleList(encoders), nn.ModuleList(groups)
        self.decoder, self.likelihood = decoder, likelihood
        self.start = nn.Parameter(torch.randn(width))

    @classmethod
    def assemble(
        cls,
        data: DataSpec,
        *,
        latents: Sequence[Count] = (8, 16),
        width: Count = 128,
        encoder: Part[Network] = Part(MLP, widths=[128]),
        network: Part[Network] = Part(MLP, widths=[128]),
        decoder: Part[Network] = Part(MLP, widths=[128]),
        likelihood: Part[Likelihood] = Part(BernoulliLikelihood),
    ) -> Self:
        """Give each part its shapes and put them together; `latents` are units per group, top first."""
        px = likelihood(Slot(data.event, data))
        c = data.context_features
        shapes: dict[str, Shape] = {f"z{index + 1}": (units,) for index, units in enumerate(latents)}
        encoders = [encoder(Ports(px.preparation.inputs_shape, (width,), c, px.preparation.vocabulary))]
        encoders += [network(Ports((width,), (width,), c)) for _ in latents[1:]]
        groups = [Group(data, shape, width, network) for shape in shapes.values()]
        out = decoder(Ports((width,), px.features_shape or data.event, c))
        return cls(data, shapes, encoders, groups, out, px, width)

    @property
    def preparation(self) -> Preparation:
        return self.likelihood.preparation

    def evidence(self, x: Tensor, context: Context | None, noise: Noise, samples: int = 1) -> Evidence:
        d = self.start.expand(samples, x.shape[0], -1)
        latents = {}
        for name, group, h in self._levels(x, context):
            q, p = group.q(d, h, context), group.p(d, context)
            latents[name] = Latent.drawn(q, p, noise.child(name), samples)
            d = group.next(d, latents[name].z, context)
        g = apply(self.decoder, d, context)
        px = self.likelihood(g, context)
        return Evidence(
            x=x,
            context=context,
            distortion=-px.log_prob(x),
            latents=latents,
            penalties=self.likelihood.penalties(g, x),
            px=px,
            anchor=g,
            statistics={"likelihood": self.likelihood.statistics(px, x)},
        )

    def encode(self, x: Tensor, context: Context | None = None, noise: Noise | None = None) -> Latents:
        d = self.start.expand(x.shape[0], -1)
        codes: Latents = {}
        for name, group, h in self._levels(x, context):
            q = group.q(d, h, context)
            codes[name] = tree.point(q) if noise is None else tree.draw(q, noise.child(name))[0][0]
            d = group.next(d, codes[name], context)
        return codes

    def decode(self, latents: Latents, context: Context | None = None) -> Distribution:
        d = self.start.expand(next(iter(latents.values())).shape[0], -1)
        for name, group in zip(self.latents, self._groups, strict=True):
            d = group.next(d, latents[name], context)
        return self._px(d, context)

    def sample(self, noise: Noise, context: Context | None = None) -> Distribution:
        d = self.start.expand(noise.rows, -1)
        for name, group in zip(self.latents, self._groups, strict=True):
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

    def _px(self, d: Tensor, context: Context | None) -> Distribution:
        px: Distribution = self.likelihood(apply(self.decoder, d, context), context)
        return px

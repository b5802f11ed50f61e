"""Likelihoods of solids: of clouds of points, and of what lies inside."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution, MixtureSameFamily

from lowerbound.errors import DataError, ShapeError
from lowerbound.kinds import Part
from lowerbound.model.conditionals.conditional import Features, Slot, in_float, softly_bounded
from lowerbound.model.conditionals.likelihoods import LOGVAR_RANGE, Likelihood
from lowerbound.model.conditionals.preparation import Continuous
from lowerbound.model.distributions.cloud import Cloud
from lowerbound.model.distributions.flow import Flow
from lowerbound.model.distributions.occupancy import Occupancy
from lowerbound.model.distributions.tree import diagonal_normal
from lowerbound.model.networks.bijections.bijection import Bijection, Chain, Place
from lowerbound.model.networks.bijections.couplings import Coupling
from lowerbound.model.networks.mlp import ModulatedMLP
from lowerbound.model.networks.network import Network, Ports
from lowerbound.model.networks.points import place_waves
from lowerbound.model.spec import Context, Count, Positive
from lowerbound.noise import Noise


class CloudLikelihood(Likelihood):
    """Points that are independent given the features, so that their order means nothing; what one is, a subclass says.

    Args:
        slot: the data's place: points (P, D).

    Raises:
        ShapeError: other data.
    """

    def __init__(self, slot: Slot) -> None:
        super().__init__()
        if len(slot.event) != 2:
            raise ShapeError(
                f"a likelihood of clouds describes rows (points, coordinates), and a row has shape {list(slot.event)}; "
                'use it with data such as "shapes3d-points".'
            )
        self.preparation = Continuous(slot.data)
        self.points, self.dimensions = slot.event

    def forward(self, features: Features, context: Context | None) -> Distribution:
        return Cloud(self.each(in_float(features)), self.points)

    @abstractmethod
    def each(self, features: Tensor) -> Distribution:
        """The density of one point given features (*batch, *features_shape)."""


class MixtureCloud(CloudLikelihood):
    """Each point from a mixture of Gaussians, one mixture a row.

    Args:
        slot: the data's place.
        components: K.
        spread: of the components' means and sizes at the beginning.
    """

    def __init__(self, slot: Slot, *, components: Count = 32, spread: Positive = 0.3) -> None:
        super().__init__(slot)
        self.features_shape = (components, 2 * self.dimensions + 1)
        # Apart from one another from the start: a decoder that says nothing yet would leave all components alike.
        self.starts = nn.Parameter(spread * torch.randn(components, self.dimensions))
        self.raw_logvar = nn.Parameter(torch.full((components, self.dimensions), 2 * torch.tensor(spread).log().item()))

    def each(self, features: Tensor) -> Distribution:
        logits, mu, raw = features.split([1, self.dimensions, self.dimensions], dim=-1)
        logvar = softly_bounded(self.raw_logvar + raw, *LOGVAR_RANGE)
        return MixtureSameFamily(
            Categorical(logits=logits.squeeze(-1), validate_args=False),
            diagonal_normal(self.starts + mu, logvar, 1),
            validate_args=False,
        )


class FlowCloud(CloudLikelihood):
    """Each point from a flow that sees the features (Yang et al. 2019, "PointFlow", with couplings).

    Args:
        slot: the data's place.
        features: width of what the flow sees.
        steps: bijections one after another.
        bijection: each of them.
    """

    def __init__(
        self, slot: Slot, *, features: Count = 64, steps: Count = 6, bijection: Part[Bijection] = Part(Coupling)
    ) -> None:
        super().__init__(slot)
        self.features_shape = (features,)
        event = (self.dimensions,)
        self.mu, self.logvar = nn.Parameter(torch.zeros(event)), nn.Parameter(torch.full(event, -2.0))
        self.bijection = Chain([bijection(Place(event, features, step)) for step in range(steps)])

    def each(self, features: Tensor) -> Distribution:
        batch = features.shape[:-1]
        mu, logvar = (value.expand(*batch, *value.shape) for value in (self.mu, self.logvar))
        return Flow(diagonal_normal(mu, logvar, 1), features, self.bijection)


class Queries(Continuous):
    """Points of the cube from -1/2 to 1/2 and whether each lies inside, as they are.

    An encoder sees the points inside, on [-2, 2], and zeros for the others: where the solid is, and not where it was
    asked for, is what tells one row from another.

    Args:
        data: facts about the data.
    """

    def inputs(self, x: Tensor) -> Tensor:
        inside = x[..., 3:]
        return torch.cat([4 * inside * x[..., :3], inside], dim=-1)

    def check(self, raw: Tensor) -> None:
        where, inside = raw[..., :3], raw[..., 3]
        if bool((where.abs() > 0.5).any()) or bool(((inside < 0) | (inside > 1)).any()):
            raise DataError(
                "queries are coordinates from -1/2 to 1/2 and occupancies from 0 to 1, and these have values beyond; "
                "scale the solids into the unit cube."
            )

    def prepare(self, raw: Tensor, noise: Noise | None) -> Tensor:
        """A probability of lying inside, as reconstructions have, becomes yes or no."""
        x = super().prepare(raw, noise)
        return torch.cat([x[..., :3], (x[..., 3:] >= 0.5).to(x.dtype)], dim=-1)


class OccupancyLikelihood(Likelihood):
    """Whether points lie inside, by a network of their coordinates and the features: an implicit function.

    The network sees coordinates on [-1, 1] and their sines and cosines at octaves, without which it learns slowly what
    is small (Tancik et al. 2020).

    Args:
        slot: the data's place: queries (P, 4).
        features: width of what the network sees of the row.
        network: from coordinates to log odds.
        frequencies: octaves.

    Raises:
        ShapeError: other data.
    """

    def __init__(
        self,
        slot: Slot,
        *,
        features: Count = 64,
        network: Part[Network] = Part(ModulatedMLP),
        frequencies: Count = 3,
    ) -> None:
        super().__init__()
        if slot.data.geometry != "queries":
            raise ShapeError(
                "a likelihood of occupancies describes queries, points with whether each lies inside, and these data "
                f'are none (rows of shape {list(slot.event)}); use it with data such as "shapes3d-occupancy".'
            )
        self.preparation = Queries(slot.data)
        self.points, self.features_shape = slot.event[0], (features,)
        self.network = Waves(network, features, frequencies)

    def forward(self, features: Features, context: Context | None) -> Distribution:
        return Occupancy(in_float(features), self.network, self.points)


class Waves(nn.Module):
    """A network of coordinates (N, 3) and features (N, F) that sees sines and cosines of the coordinates too.

    Args:
        network: to one number.
        features: F.
        frequencies: octaves.
    """

    def __init__(self, network: Part[Network], features: int, frequencies: int) -> None:
        super().__init__()
        self.frequencies = frequencies
        self.network = network(Ports((3 + 6 * frequencies,), (1,), features))

    def forward(self, where: Tensor, h: Tensor) -> Tensor:
        """(N, 1)."""
        result: Tensor = self.network(place_waves(where, self.frequencies), h)
        return result

"""Queries of a solid: points of the unit cube, and whether each lies inside."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, constraints
from torch.nn.functional import logsigmoid

from lowerbound.model.distributions import tree
from lowerbound.noise import Noise, SameNoise


class Occupancy(Distribution):
    """Coordinates that are uniform in the cube from -1/2 to 1/2, and at each a Bernoulli variable.

    The cube's volume is 1, so that coordinates add nothing: log p(x) = sum_i log p(o_i | x_i, h), exact for any number
    of queries. `logits` asks at any coordinates, on as fine a grid as one likes (Mescheder et al. 2019, eq. 1).

    Args:
        features: h, (*batch, F).
        network: from coordinates (N, 3) and features (N, F) to logits (N, 1).
        points: queries of a row.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012 (torch's own declaration)

    def __init__(self, features: Tensor, network: nn.Module, points: int, validate_args: bool | None = None) -> None:
        self.features, self.network, self.points = features, network, points
        super().__init__(features.shape[:-1], torch.Size([points, 4]), validate_args=validate_args)

    def logits(self, coordinates: Tensor) -> Tensor:
        """Log odds of lying inside at coordinates (*batch, Q, 3), (*batch, Q)."""
        batch = torch.broadcast_shapes(self.batch_shape, coordinates.shape[:-2])
        shape = (*batch, coordinates.shape[-2])
        h = self.features.unsqueeze(-2).expand(*shape, self.features.shape[-1])
        where = coordinates.expand(*shape, 3).to(h.dtype)
        found: Tensor = self.network(where.reshape(-1, 3), h.reshape(-1, h.shape[-1]))
        return found.reshape(shape).to(h.dtype)

    def log_prob(self, value: Tensor) -> Tensor:
        where, inside = value[..., :3], value[..., 3]
        logits = self.logits(where)
        each = inside * logsigmoid(logits) + (1 - inside) * logsigmoid(-logits)
        in_cube = (where.abs() <= 0.5).all(-1)
        return torch.where(in_cube, each, -torch.inf).sum(-1)

    def asked(self, noise: Noise, samples: int, answer: Callable[[Tensor], Tensor]) -> Tensor:
        """Queries (S, B, P, 4) at random coordinates, with an answer made of the log odds."""
        where = noise.child("where").uniform(samples, (self.points, 3)).to(self.features.dtype) - 0.5
        logits = self.logits(where)
        where = where.expand(*logits.shape, 3)
        return torch.cat([where, answer(logits)[..., None]], dim=-1)


tree.register(Occupancy, {"features": "features"}, ["network", "points"])


@tree.detach.register
def _detach_occupancy(distribution: Occupancy) -> Occupancy:
    d = distribution
    return Occupancy(d.features.detach(), copy.deepcopy(d.network).requires_grad_(False), d.points)


@tree.point.register
def _point_occupancy(distribution: Occupancy) -> Tensor:
    """Probabilities at coordinates that are always the same."""
    rows = distribution.batch_shape[-1] if distribution.batch_shape else 1
    found = distribution.asked(SameNoise(0, rows), 1, torch.sigmoid)
    return found.reshape(*distribution.batch_shape, *distribution.event_shape)


@tree.draw_row(Occupancy)
def _draw_occupancy(
    distribution: Occupancy, noise: Noise, samples: int, event: tuple[int, ...]
) -> tuple[Tensor, Tensor]:
    chance = noise.child("inside").uniform(samples, (distribution.points,))
    z = distribution.asked(noise, samples, lambda logits: (chance < torch.sigmoid(logits)).to(logits.dtype))
    return z, distribution.log_prob(z)

"""A ring: points at about one distance from the origin, in all directions alike."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from lowerbound.errors import NotSupportedError
from lowerbound.model.distributions import tree
from lowerbound.noise import Noise


class Ring(Distribution):
    """z = r u, u uniform on the unit sphere and r from N(radius, width^2) cut to r > 0: a shell in more dimensions.

    log p(z) = log p(r) - (D - 1) log r - log A, with A the area of the unit sphere in D dimensions.

    Args:
        radius, width: (), above 0.
        event: shape of a row.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012 (torch's own declaration)

    def __init__(self, radius: Tensor, width: Tensor, event: torch.Size, validate_args: bool | None = None) -> None:
        self.radius, self.width, self.event, self.size = radius, width, event, math.prod(event)
        super().__init__(torch.Size(), event, validate_args=validate_args)

    def log_prob(self, value: Tensor) -> Tensor:
        r = value.flatten(value.ndim - len(self.event)).norm(dim=-1)
        area = math.log(2) + 0.5 * self.size * math.log(math.pi) - math.lgamma(0.5 * self.size)
        of_radius = -0.5 * ((r - self.radius) / self.width).square() - 0.5 * math.log(2 * math.pi) - self.width.log()
        return of_radius - self._inside.log() - (self.size - 1) * r.log() - area

    @property
    def mean(self) -> Tensor:
        return self.radius.new_zeros(self.event)

    @property
    def variance(self) -> Tensor:
        cut = -self.radius / self.width
        slope = torch.exp(-0.5 * cut.square()) / (math.sqrt(2 * math.pi) * self._inside)
        square = self.radius**2 + 2 * self.radius * self.width * slope + self.width**2 * (1 + cut * slope)
        return (square / self.size).expand(self.event)

    def radii(self, uniform: Tensor) -> Tensor:
        """Radii of uniform numbers, by the inverse of their distribution."""
        below = 1 - self._inside
        found: Tensor = self.radius + self.width * torch.special.ndtri(below + uniform * self._inside)
        return found

    @property
    def _inside(self) -> Tensor:
        """The share of N(radius, width^2) above 0."""
        inside: Tensor = torch.special.ndtr(self.radius / self.width)
        return inside


tree.register(Ring, {"radius": "radius", "width": "width"}, ["event"])


@tree.point.register
def _point_ring(distribution: Ring) -> Tensor:
    raise NotSupportedError("a ring has no point that stands for it; draw from it instead.")


@tree.draw_row(Ring)
def _draw_ring(distribution: Ring, noise: Noise, samples: int, event: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    own = len(distribution.event)
    ray = noise.child("direction").normal(samples, event).to(distribution.radius.dtype)
    ray = ray / ray.flatten(ray.ndim - own).norm(dim=-1).reshape(*ray.shape[: ray.ndim - own], *(1,) * own)
    lead = event[: len(event) - own]
    r = distribution.radii(noise.child("radius").uniform(samples, lead).to(ray.dtype))
    z = ray * r.reshape(*r.shape, *(1,) * own)
    return z, distribution.log_prob(z)

"""A Gaussian with all covariances."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, MultivariateNormal, Normal, constraints, register_kl

from lowerbound.model.distributions import tree
from lowerbound.noise import Noise


class FullNormal(Distribution):
    """N(loc, L L^T) over the units of an event of any shape, flattened.

    Args:
        loc: (*batch, *event).
        scale_tril: L, (*batch, D, D), lower triangular with a positive diagonal.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012 (torch's own declaration)

    def __init__(self, loc: Tensor, scale_tril: Tensor, validate_args: bool | None = None) -> None:
        self.loc, self.scale_tril = loc, scale_tril
        split = scale_tril.ndim - 2
        super().__init__(loc.shape[:split], loc.shape[split:], validate_args=validate_args)

    @property
    def flat(self) -> MultivariateNormal:
        """The same over flat vectors."""
        loc = self.loc.reshape(*self.batch_shape, -1)
        return MultivariateNormal(loc, scale_tril=self.scale_tril, validate_args=False)

    @property
    def mean(self) -> Tensor:
        return self.loc

    @property
    def variance(self) -> Tensor:
        return self.scale_tril.square().sum(dim=-1).reshape(self.loc.shape)

    @property
    def covariance(self) -> Tensor:
        """(*batch, D, D)."""
        return self.scale_tril @ self.scale_tril.mT

    def log_prob(self, value: Tensor) -> Tensor:
        lead = value.shape[: value.ndim - len(self.event_shape)]
        return self.flat.log_prob(value.reshape(*lead, -1))


tree.register(FullNormal, {"loc": "loc", "scale_tril": "scale_tril"})


@tree.point.register
def _point_full(distribution: FullNormal) -> Tensor:
    return distribution.loc


@tree.draw_row(FullNormal)
def _draw_full(distribution: FullNormal, noise: Noise, samples: int, event: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    eps = noise.normal(samples, event).to(distribution.loc.dtype)
    lead = eps.shape[: eps.ndim - len(distribution.event_shape)]
    flat = eps.reshape(*lead, -1)
    z = distribution.loc + (distribution.scale_tril @ flat.unsqueeze(-1)).squeeze(-1).reshape(eps.shape)
    log_scale = distribution.scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(dim=-1)
    return z, -0.5 * (flat.square() + math.log(2 * math.pi)).sum(dim=-1) - log_scale


@register_kl(FullNormal, Independent)
def _kl_full_diagonal(q: FullNormal, p: Independent) -> Tensor:
    """Against a Gaussian with independent units; NotImplementedError, as torch says it, for any other density."""
    base = p.base_dist
    if not isinstance(base, Normal) or p.event_shape != q.event_shape:
        raise NotImplementedError
    variance = base.scale.square()
    quadratic = (q.variance + (q.loc - base.loc).square()) / variance + variance.log() - 1
    log_scale = q.scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(dim=-1)
    axes = len(q.event_shape)
    return 0.5 * quadratic.flatten(quadratic.ndim - axes).sum(dim=-1) - log_scale


@register_kl(FullNormal, FullNormal)
def _kl_full_full(q: FullNormal, p: FullNormal) -> Tensor:
    result: Tensor = torch.distributions.kl_divergence(q.flat, p.flat)
    return result

"""A density over units, one unit at a time: each a mixture of Gaussians given those before it."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from typing import Protocol, Self

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, constraints

from lowerbound.model.distributions import tree
from lowerbound.model.distributions.folding import folded
from lowerbound.noise import Noise

LOGVAR = 10.0  # log variances lie between -10 and 10


class Masked(Protocol):
    """A module of z (N, D), given features h (N, C) or None, to (N, D, K): what is at unit d depends on z_<d only."""

    outputs: int  # K

    def __call__(self, z: Tensor, h: Tensor | None) -> Tensor: ...

    def parameters(self) -> Iterator[nn.Parameter]: ...

    def requires_grad_(self, requires_grad: bool = True) -> Self: ...


class AutoregressiveMixture(Distribution):
    """p(z) = prod_d sum_m w_m N(z_d; mu_m, sigma_m^2), all from z_<d (Germain et al. 2015; Uria et al. 2013, eq. 8).

    One pass to score, D passes to draw. A draw has no gradient to the mixtures' weights.

    Args:
        features: h, (*batch, C); None where the network needs none.
        network: masked, 3 M numbers per unit: logits, means and log variances.
        event: shape of the variable; its units are taken in the order of memory.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012 (torch's own declaration)

    def __init__(
        self, features: Tensor | None, network: Masked, event: torch.Size, validate_args: bool | None = None
    ) -> None:
        self.features, self.network, self.event = features, network, event
        batch = torch.Size() if features is None else features.shape[:-1]
        super().__init__(batch, event, validate_args=validate_args)

    def terms(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log weights, means and log variances given flat z (*batch, D): each (*batch, D, M)."""
        dtype = next(self.network.parameters()).dtype
        h = folded(self.features, z.shape[:-1])
        with torch.autocast(z.device.type, enabled=False):
            raw = self.network(z.reshape(-1, z.shape[-1]).to(dtype), None if h is None else h.to(dtype))
        logits, mu, logvar = raw.to(z.dtype).unflatten(0, z.shape[:-1]).chunk(3, dim=-1)
        return torch.log_softmax(logits, dim=-1), mu, logvar / (1 + logvar.abs() / LOGVAR)

    def log_prob(self, value: Tensor) -> Tensor:
        batch = torch.broadcast_shapes(self.batch_shape, value.shape[: value.ndim - len(self.event)])
        z = value.expand(*batch, *self.event).reshape(*batch, -1)
        log_weights, mu, logvar = self.terms(z)
        square = (z.unsqueeze(-1) - mu).square() * (-logvar).exp()
        return torch.logsumexp(log_weights - 0.5 * (square + logvar + math.log(2 * math.pi)), dim=-1).sum(dim=-1)

    def generate(self, batch: torch.Size, like: Tensor, gumbel: Tensor | None, eps: Tensor | None) -> Tensor:
        """Units (*batch, *event) in turn: draws by noise (*batch, D, M) and (*batch, D), or conditional means."""
        size = self.event.numel()
        z = like.new_zeros(*batch, size)
        for unit in range(size):
            log_weights, mu, logvar = (values[..., unit, :] for values in self.terms(z))
            if gumbel is None or eps is None:
                found = (log_weights.exp() * mu).sum(dim=-1)
            else:
                chosen = (log_weights + gumbel[..., unit, :]).argmax(dim=-1, keepdim=True)
                mean, scale = mu.gather(-1, chosen), (0.5 * logvar).exp().gather(-1, chosen)
                found = (mean + scale * eps[..., unit, None]).squeeze(-1)
            z = torch.cat([z[..., :unit], found.unsqueeze(-1), z[..., unit + 1 :]], dim=-1)
        return z.reshape(*batch, *self.event)


tree.register(AutoregressiveMixture, {"features": "features"}, ["network", "event"])


@tree.point.register
def _point_mixture(distribution: AutoregressiveMixture) -> Tensor:
    """Each unit at its mean given the points of those before it."""
    like = next(distribution.network.parameters())
    return distribution.generate(distribution.batch_shape, like, None, None)


@tree.detach.register
def _detach_mixture(distribution: AutoregressiveMixture) -> AutoregressiveMixture:
    d = distribution
    features = None if d.features is None else d.features.detach()
    return AutoregressiveMixture(features, copy.deepcopy(d.network).requires_grad_(False), d.event)


@tree.draw_row(AutoregressiveMixture)
def _draw_mixture(
    distribution: AutoregressiveMixture, noise: Noise, samples: int, event: tuple[int, ...]
) -> tuple[Tensor, Tensor]:
    own = len(distribution.event)
    lead, size = event[: len(event) - own], distribution.event.numel()
    components = distribution.network.outputs // 3
    gumbel = noise.child("component").gumbel(samples, (*lead, size, components))
    eps = noise.child("value").normal(samples, (*lead, size))
    batch = torch.Size([samples, noise.rows, *lead])
    like = next(distribution.network.parameters())
    z = distribution.generate(batch, like, gumbel.to(like.dtype), eps.to(like.dtype))
    return z, distribution.log_prob(z)

"""Densities on the unit sphere: the von Mises-Fisher density and the uniform one (Davidson et al. 2018)."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution, constraints, register_kl

from lowerbound.errors import NotSupportedError
from lowerbound.model.distributions import tree
from lowerbound.noise import Noise

EXTRA = 48  # steps of the recurrence above the order that is wanted
TRIES = 8  # proposals of the sampler at a time; about 0.7 of them are accepted
ROUNDS = 32
NODES, WEIGHTS = np.polynomial.legendre.leggauss(48)


def log_bessel(order: float, k: Tensor) -> tuple[Tensor, Tensor]:
    """log I_v(k) and I_{v+1}(k) / I_v(k) for v = 0, 1/2, 1, ... and k > 0, in double precision, with gradient.

    Ratios of neighbouring orders follow from the recurrence I_{u-1} - I_{u+1} = (2u / k) I_u, which is stable
    downwards; it starts from expansions for large orders. I_0 and I_{1/2} are known.
    """
    k = k.double()
    start = order % 1
    above = order + EXTRA
    ratio = (_log_bessel_of_large_order(above + 1, k) - _log_bessel_of_large_order(above, k)).exp()
    log_ratios = torch.zeros_like(k)
    wanted = ratio
    while above > start:
        if above == order:
            wanted = ratio
        ratio = k / (2 * above + k * ratio)
        above -= 1
        if above < order:
            log_ratios = log_ratios + ratio.log()
    if order == start:
        wanted = ratio
    if start:
        lowest = k + torch.log1p(-torch.exp(-2 * k)) - 0.5 * torch.log(2 * math.pi * k)
    else:
        lowest = k + torch.special.i0e(k).log()
    return lowest + log_ratios, wanted


def _log_bessel_of_large_order(order: float, k: Tensor) -> Tensor:
    """log I_v(k), uniformly in k, by Debye's expansion to the order v^-3: DLMF 10.41.3."""
    z = k / order
    root = (1 + z.square()).sqrt()
    p = 1 / root
    first = p * (3 - 5 * p**2) / 24
    second = p**2 * (81 - 462 * p**2 + 385 * p**4) / 1152
    third = p**3 * (30375 - 369603 * p**2 + 765765 * p**4 - 425425 * p**6) / 414720
    exponent = order * (root + (z / (1 + root)).log())
    series = torch.log1p(first / order + second / order**2 + third / order**3)
    return exponent - 0.5 * math.log(2 * math.pi * order) - 0.5 * root.log() + series


class SphereUniform(Distribution):
    """The uniform density on the unit sphere in as many dimensions as an event has units.

    Args:
        zeros: (*event), where the density lives.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012 (torch's own declaration)
    on_sphere = True

    def __init__(self, zeros: Tensor, validate_args: bool | None = None) -> None:
        self.zeros = zeros
        super().__init__(torch.Size(), zeros.shape, validate_args=validate_args)

    @property
    def log_area(self) -> float:
        """Of the sphere."""
        half = self.zeros.numel() / 2
        return math.log(2) + half * math.log(math.pi) - math.lgamma(half)

    @property
    def mean(self) -> Tensor:
        return self.zeros

    @property
    def variance(self) -> Tensor:
        return torch.full_like(self.zeros, 1 / self.zeros.numel())

    def log_prob(self, value: Tensor) -> Tensor:
        return value.new_full(value.shape[: value.ndim - len(self.event_shape)], -self.log_area)


class VonMisesFisher(Distribution):
    """p(z) = C_D(k) exp(k mu . z) on the unit sphere of the flattened event (Davidson et al. 2018, eq. 3-4).

    Args:
        mu: direction, (*batch, *event), of length 1.
        concentration: k > 0, (*batch).
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012 (torch's own declaration)
    on_sphere = True

    def __init__(self, mu: Tensor, concentration: Tensor, validate_args: bool | None = None) -> None:
        self.mu, self.concentration = mu, concentration
        super().__init__(concentration.shape, mu.shape[concentration.ndim :], validate_args=validate_args)

    @property
    def size(self) -> int:
        """D."""
        return self.event_shape.numel()

    def normaliser(self) -> tuple[Tensor, Tensor]:
        """log C_D(k) and the mean of mu . z, A_D(k) = I_{D/2}(k) / I_{D/2-1}(k), both (*batch), in double precision."""
        k, order = self.concentration.double(), self.size / 2 - 1
        log_i, ratio = log_bessel(order, k)
        return order * k.log() - 0.5 * self.size * math.log(2 * math.pi) - log_i, ratio

    @property
    def mean(self) -> Tensor:
        ratio = self.normaliser()[1].to(self.mu.dtype)
        return self._over_event(ratio) * self.mu

    @property
    def variance(self) -> Tensor:
        return self.covariance.diagonal(dim1=-2, dim2=-1).reshape(self.mu.shape)

    @property
    def covariance(self) -> Tensor:
        """(A/k) I + (1 - D A/k - A^2) mu mu^T, (*batch, D, D)."""
        ratio, k = self.normaliser()[1], self.concentration.double()
        across = ratio / k
        along = 1 - self.size * across - ratio.square()
        mu = self.mu.reshape(*self.batch_shape, -1)
        outer = mu.unsqueeze(-1) * mu.unsqueeze(-2)
        identity = torch.eye(self.size, dtype=mu.dtype, device=mu.device)
        return across.to(mu.dtype)[..., None, None] * identity + along.to(mu.dtype)[..., None, None] * outer

    def log_prob(self, value: Tensor) -> Tensor:
        cosine = (self.mu * value).flatten(value.ndim - len(self.event_shape)).sum(dim=-1)
        return self.log_density(cosine)

    def log_density(self, cosine: Tensor) -> Tensor:
        """The log-density where mu . z is given."""
        found = self.normaliser()[0] + self.concentration.double() * cosine
        return found.to(self.mu.dtype)

    def _over_event(self, values: Tensor) -> Tensor:
        return values.reshape(*values.shape, *(1,) * len(self.event_shape))


tree.register(SphereUniform, {"zeros": "zeros"})
tree.register(VonMisesFisher, {"mu": "mu", "concentration": "concentration"})


@tree.point.register
def _point_uniform(distribution: SphereUniform) -> Tensor:
    raise NotSupportedError("the uniform density on a sphere has no point that stands for it; draw from it instead.")


@tree.point.register
def _point_direction(distribution: VonMisesFisher) -> Tensor:
    """The mean direction."""
    return distribution.mu


@register_kl(VonMisesFisher, SphereUniform)
def _kl_uniform(q: VonMisesFisher, p: SphereUniform) -> Tensor:
    """k A_D(k) + log C_D(k) + log area: Davidson et al. 2018, eq. 5."""
    log_c, ratio = q.normaliser()
    return (q.concentration.double() * ratio + log_c + p.log_area).to(q.mu.dtype)


@tree.draw_row(SphereUniform)
def _draw_uniform(
    distribution: SphereUniform, noise: Noise, samples: int, event: tuple[int, ...]
) -> tuple[Tensor, Tensor]:
    eps = noise.normal(samples, event).to(distribution.zeros.dtype)
    flat = eps.flatten(eps.ndim - len(distribution.event_shape))
    z = (flat / flat.norm(dim=-1, keepdim=True)).reshape(eps.shape)
    return z, distribution.log_prob(z)


@tree.draw_row(VonMisesFisher)
def _draw_fisher(
    distribution: VonMisesFisher, noise: Noise, samples: int, event: tuple[int, ...]
) -> tuple[Tensor, Tensor]:
    """z = w mu + sqrt(1 - w^2) v with v uniform among the directions at right angles to mu, and gradient throughout."""
    d = distribution
    mu = d.mu.reshape(*d.batch_shape, -1)
    lead = event[: len(event) - len(d.event_shape)]
    w = _reparameterised(_draw_cosine(d, noise.child("cosine"), samples, lead), d)
    eps = noise.child("direction").normal(samples, (*lead, d.size)).to(mu.dtype)
    across = eps - (eps * mu).sum(dim=-1, keepdim=True) * mu
    across = across / across.norm(dim=-1, keepdim=True)
    sine = (1 - w.square()).clamp_min(1e-30).sqrt().to(mu.dtype)
    z = w.to(mu.dtype).unsqueeze(-1) * mu + sine.unsqueeze(-1) * across
    return z.reshape(*z.shape[:-1], *d.event_shape), d.log_density(w)


@torch.no_grad()
def _draw_cosine(d: VonMisesFisher, noise: Noise, samples: int, lead: tuple[int, ...]) -> Tensor:
    """w = mu . z by rejection (Ulrich 1984; Wood 1994), (S, B, *lead), without gradient.

    Every row goes through the proposals of its own stream of noise, so it does not matter which others need more.
    """
    k, m = d.concentration.double().unsqueeze(-1), d.size - 1
    b = m / (2 * k + (4 * k.square() + m * m).sqrt())
    x = (1 - b) / (1 + b)
    limit = k * x + m * torch.log1p(-x.square())
    w = torch.full((samples, noise.rows, *lead), math.nan, dtype=torch.float64, device=k.device)
    for number in range(ROUNDS):
        tries = noise.child(f"round{number}")
        normal = tries.child("beta").normal(samples, (*lead, TRIES, d.size)).double()
        beta = 0.5 * (1 + normal[..., 0] / normal.norm(dim=-1))  # of parameters m/2, m/2
        proposed = (1 - (1 + b) * beta) / (1 - (1 - b) * beta)
        level = tries.child("accept").uniform(samples, (*lead, TRIES)).double().log()
        accepted = k * proposed + m * torch.log1p(-x * proposed) - limit >= level
        first = proposed.gather(-1, accepted.double().argmax(dim=-1, keepdim=True)).squeeze(-1)
        w = torch.where(w.isnan() & accepted.any(dim=-1), first, w)
        if not w.isnan().any():
            break
    return w.clamp(-1 + 1e-12, 1 - 1e-12)


def _reparameterised(w: Tensor, d: VonMisesFisher) -> Tensor:
    """w with its gradient to k: dw/dk = -(dF/dk) / f, F the distribution function of w (Figurnov et al. 2018, eq. 6).

    -dF/dk = int_w^1 (t - A) f(t) dt = -int_{-1}^w (t - A) f(t) dt, by Gauss and Legendre's rule in the angle, over the
    side that does not hold the mode.
    """
    k = d.concentration.double()
    if not k.requires_grad:
        return w
    with torch.no_grad():
        ratio = d.normaliser()[1]
        angle = torch.acos(w)
        right = w >= ratio
        low, high = torch.where(right, 0.0, angle), torch.where(right, angle, math.pi)
        nodes, weights = (torch.as_tensor(values, device=w.device) for values in (NODES, WEIGHTS))
        half = 0.5 * (high - low)
        theta = low.unsqueeze(-1) + half.unsqueeze(-1) * (nodes + 1)
        cosine = theta.cos()
        growth = k.unsqueeze(-1) * (cosine - w.unsqueeze(-1))
        growth = growth + (d.size - 2) * (theta.sin().log() - angle.sin().log().unsqueeze(-1))
        area = ((cosine - ratio.unsqueeze(-1)) * growth.exp() * weights).sum(dim=-1) * half
        slope = torch.where(right, area, -area) * angle.sin()
    return w + slope * (k - k.detach())

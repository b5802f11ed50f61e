"""Densities of counts: the negative binomial, and one with extra zeros."""

from __future__ import annotations

import numpy as np
import torch
from scipy.special import betainc
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.nn.functional import logsigmoid, softplus

from lowerbound.model.distributions import tree
from lowerbound.noise import Noise


class NegativeBinomial(Distribution):
    """Counts with mean m and variance m + m^2 / r (Lopez et al. 2018, scVI).

    log P(x) = lgamma(x + r) - lgamma(r) - lgamma(x + 1) + r log(r / (r + m)) + x log(m / (r + m)).
    It is computed in double precision (on devices that have it): the gamma functions of large counts cancel.

    Args:
        log_mean: log m, any shape.
        log_dispersion: log r, the same shape; a large r is nearly Poisson.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012 (torch's own declaration)

    def __init__(self, log_mean: Tensor, log_dispersion: Tensor, validate_args: bool | None = None) -> None:
        self.log_mean, self.log_dispersion = torch.broadcast_tensors(log_mean, log_dispersion)
        super().__init__(self.log_mean.shape, validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        """m."""
        return self.log_mean.exp()

    @property
    def variance(self) -> Tensor:
        """m + m^2 / r."""
        return self.mean + torch.exp(2 * self.log_mean - self.log_dispersion)

    def log_prob(self, value: Tensor) -> Tensor:
        x, log_r = _wide(value), _wide(self.log_dispersion)
        odds, r = _wide(self.log_mean) - log_r, log_r.exp()
        gammas = torch.lgamma(x + r) - torch.lgamma(r) - torch.lgamma(x + 1)
        return (gammas - r * softplus(odds) + x * logsigmoid(odds)).to(self.log_mean.dtype)

    def quantile(self, u: Tensor) -> Tensor:
        """The smallest count whose distribution function, an incomplete beta function, is at least u.

        By bisection on the CPU; without gradient.
        """
        r = np.exp(self.log_dispersion.detach().double().cpu().numpy())
        success = r / (r + np.exp(self.log_mean.detach().double().cpu().numpy()))
        share = u.detach().double().cpu().numpy()
        r, success, share = np.broadcast_arrays(r, success, share)
        low, high = np.full(share.shape, -1.0), np.zeros(share.shape)
        while (short := betainc(r, high + 1, success) < share).any():
            low, high = np.where(short, high, low), np.where(short, 2 * high + 1, high)
        while (high - low > 1).any():
            middle = np.floor((low + high) / 2)
            reached = betainc(r, middle + 1, success) >= share
            low, high = np.where(reached, low, middle), np.where(reached, middle, high)
        return torch.as_tensor(high).to(u.device, self.log_mean.dtype)


class ZeroInflatedNegativeBinomial(Distribution):
    """0 with probability w, else a negative binomial count (Lopez et al. 2018, scVI).

    Args:
        zero_logits: logit of w, any shape.
        log_mean, log_dispersion: of the counts, the same shape.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012 (torch's own declaration)

    def __init__(
        self, zero_logits: Tensor, log_mean: Tensor, log_dispersion: Tensor, validate_args: bool | None = None
    ) -> None:
        self.zero_logits, self.log_mean, self.log_dispersion = torch.broadcast_tensors(
            zero_logits, log_mean, log_dispersion
        )
        super().__init__(self.log_mean.shape, validate_args=validate_args)

    @property
    def counts(self) -> NegativeBinomial:
        """The part without extra zeros."""
        return NegativeBinomial(self.log_mean, self.log_dispersion, validate_args=False)

    @property
    def mean(self) -> Tensor:
        """(1 - w) m."""
        return torch.sigmoid(-self.zero_logits) * self.counts.mean

    @property
    def variance(self) -> Tensor:
        """(1 - w) (m + m^2 / r + w m^2)."""
        w, counts = torch.sigmoid(self.zero_logits), self.counts
        return (1 - w) * (counts.variance + w * counts.mean.square())

    def log_prob(self, value: Tensor) -> Tensor:
        counted = logsigmoid(-self.zero_logits) + self.counts.log_prob(value)
        zero = torch.logaddexp(logsigmoid(self.zero_logits), counted)
        return torch.where(value == 0, zero, counted)


def _wide(values: Tensor) -> Tensor:
    """In double precision, where the device has it."""
    return values if values.device.type == "mps" else values.double()


tree.register(NegativeBinomial, {"log_mean": "log_mean", "log_dispersion": "log_dispersion"})
tree.register(
    ZeroInflatedNegativeBinomial,
    {"zero_logits": "zero_logits", "log_mean": "log_mean", "log_dispersion": "log_dispersion"},
)


@tree.point.register(NegativeBinomial)
@tree.point.register(ZeroInflatedNegativeBinomial)
def _point(distribution: NegativeBinomial | ZeroInflatedNegativeBinomial) -> Tensor:
    return distribution.mean


@tree.draw_row(NegativeBinomial)
def _draw(distribution: NegativeBinomial, noise: Noise, samples: int, event: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """By the inverse distribution function, without gradient."""
    z = distribution.quantile(noise.uniform(samples, event))
    return z, distribution.log_prob(z)


@tree.draw_row(ZeroInflatedNegativeBinomial)
def _draw_inflated(
    distribution: ZeroInflatedNegativeBinomial, noise: Noise, samples: int, event: tuple[int, ...]
) -> tuple[Tensor, Tensor]:
    counts = distribution.counts.quantile(noise.child("count").uniform(samples, event))
    extra = noise.child("zero").uniform(samples, event) < torch.sigmoid(distribution.zero_logits)
    z = torch.where(extra, torch.zeros_like(counts), counts)
    return z, distribution.log_prob(z)

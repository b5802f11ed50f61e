"""The continuous Bernoulli density on [0, 1] (Loaiza-Ganem & Cunningham 2019)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from lowerbound.model.distributions import tree
from lowerbound.noise import Noise

# Below this half logit, series replace quotients that cancel; at it both agree to single precision.
SMALL = 0.05


class ContinuousBernoulli(Distribution):
    """p(x) = C lambda^x (1 - lambda)^(1 - x) on [0, 1], with lambda = sigmoid(logits).

    With the logit l this is exp(l (x - 1/2)) / sinhc(l / 2), where sinhc(a) = sinh(a) / a: a form without the
    removable singularity that the paper's normaliser has at lambda = 1/2.

    Args:
        logits: l, any shape.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012 (torch's own declaration)

    def __init__(self, logits: Tensor, validate_args: bool | None = None) -> None:
        self.logits = logits
        super().__init__(logits.shape, validate_args=validate_args)

    def log_prob(self, value: Tensor) -> Tensor:
        return self.logits * (value - 0.5) - log_sinhc(0.5 * self.logits)

    @property
    def mean(self) -> Tensor:
        """1/2 + (coth a - 1/a) / 2 with a = l / 2."""
        a = 0.5 * self.logits
        small = a.abs() < SMALL
        safe = torch.where(small, torch.ones_like(a), a)
        langevin = torch.where(small, a / 3 - a**3 / 45 + 2 * a**5 / 945, 1 / torch.tanh(safe) - 1 / safe)
        return 0.5 + 0.5 * langevin

    @property
    def variance(self) -> Tensor:
        """(1/a^2 - 1/sinh(a)^2) / 4 with a = l / 2."""
        a = 0.5 * self.logits
        small = a.abs() < SMALL
        safe = torch.where(small, torch.ones_like(a), a.abs())
        decayed = torch.exp(-2 * safe)
        inverse_sinh2 = 4 * decayed / (1 - decayed).square()
        return 0.25 * torch.where(small, 1 / 3 - a**2 / 15 + 2 * a**4 / 189, 1 / safe.square() - inverse_sinh2)

    def quantile(self, u: Tensor) -> Tensor:
        """The value below which a share u of the mass lies: log(1 + u (e^l - 1)) / l."""
        logits = self.logits
        size = logits.abs()
        small = size < 1e-3
        safe = torch.where(small, torch.ones_like(size), size)
        # From the end where the mass is, so that nothing overflows.
        above = torch.where(logits > 0, 1 - u, u)
        from_end = -torch.log1p(-above * -torch.expm1(-safe)) / safe
        x = torch.where(logits > 0, 1 - from_end, from_end)
        return torch.where(small, u - 0.5 * logits * u * (1 - u), x).clamp(0, 1)


def log_sinhc(a: Tensor) -> Tensor:
    """log(sinh(a) / a), even, 0 at 0; finite with finite gradient for any a."""
    small = a.abs() < SMALL
    size = torch.where(small, torch.ones_like(a), a.abs())
    large = size + torch.log1p(-torch.exp(-2 * size)) - torch.log(2 * size)
    return torch.where(small, a**2 / 6 - a**4 / 180 + a**6 / 2835, large)


tree.register(ContinuousBernoulli, {"logits": "logits"})


@tree.point.register
def _point(distribution: ContinuousBernoulli) -> Tensor:
    return distribution.mean


@tree.draw_row(ContinuousBernoulli)
def _draw(
    distribution: ContinuousBernoulli, noise: Noise, samples: int, event: tuple[int, ...]
) -> tuple[Tensor, Tensor]:
    """By the inverse distribution function, with gradient."""
    z = distribution.quantile(noise.uniform(samples, event).to(distribution.logits.dtype))
    return z, distribution.log_prob(z)

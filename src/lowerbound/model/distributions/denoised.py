"""A diffusion model of each row given features of it: what a diffusion decoder makes of a code."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from lowerbound.model.distributions import tree
from lowerbound.model.distributions.diffusion import DiffusionDensity
from lowerbound.noise import Noise

# (noisy x (N, *event), features of the same shape, context features (N, C) or None, time in [0, 1] (N,)) -> the
# standard noise in x, (N, *event)
Guided = Callable[[Tensor, Tensor, Tensor | None, Tensor], Tensor]


class Denoised(Distribution):
    """`DiffusionDensity` given features, with the same bound on its logarithm, estimated at random times.

    Args:
        features: (*batch, *event).
        context: features of the context, (*batch, C); None where there is none.
        denoiser: the network.
        event: shape of a row.
        start, end: log signal-to-noise ratio at t = 0 and t = 1.
        steps: steps of the samplers.
        noise: where the random times come from; `tree.attach` supplies it.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012 (torch's own declaration)
    is_exact = False

    def __init__(
        self,
        features: Tensor,
        context: Tensor | None,
        denoiser: Guided,
        event: torch.Size,
        start: float,
        end: float,
        steps: int,
        noise: Noise | None = None,
        validate_args: bool | None = None,
    ) -> None:
        self.features, self.context, self.denoiser, self.event = features, context, denoiser, event
        self.start, self.end, self.steps, self.noise = start, end, steps, noise
        super().__init__(features.shape[: features.ndim - len(event)], event, validate_args=validate_args)

    def log_prob(self, value: Tensor) -> Tensor:
        batch = torch.broadcast_shapes(self.batch_shape, value.shape[: value.ndim - len(self.event)])
        return self.of_rows(batch).log_prob(value.expand(*batch, *self.event))

    def of_rows(self, batch: torch.Size) -> DiffusionDensity:
        """The density of rows of batch shape `batch`, to which features and context are repeated."""
        features, context = self.features.expand(*batch, *self.event).reshape(-1, *self.event), self.context
        if context is not None:
            context = context.expand(*batch, context.shape[-1]).reshape(-1, context.shape[-1])
        return DiffusionDensity(
            lambda noisy, t: self.denoiser(noisy, features, context, t),
            self.event,
            self.start,
            self.end,
            self.steps,
            self.noise,
        )


tree.register(
    Denoised, {"features": "features", "context": "context"}, ["denoiser", "event", "start", "end", "steps", "noise"]
)


@tree.attach.register
def _attach(distribution: Denoised, noise: Noise) -> Distribution:
    d = distribution
    return Denoised(d.features, d.context, d.denoiser, d.event, d.start, d.end, d.steps, noise)


@tree.draw_row(Denoised)
def _draw_denoised(distribution: Denoised, noise: Noise, samples: int, event: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Samples; their log-density is not known, which NaN says."""
    batch = torch.Size([samples, noise.rows])
    z = distribution.of_rows(batch).ancestral(batch, lambda step: noise.child(f"step{step}").normal(samples, event))
    return z, z.new_full(batch, math.nan)


@tree.point.register(Denoised)
def _point_denoised(distribution: Denoised) -> Tensor:
    """One sample that is always the same: where the deterministic sampler leads from the middle of the noise, 0.

    For a Gaussian p(x|features) that is its mean; else it is a typical row, and sharper than the mean.
    """
    d = distribution
    found = d.of_rows(d.batch_shape).path(torch.zeros_like(d.features).reshape(-1, *d.event))
    return found.reshape(*d.batch_shape, *d.event)

"""Probabilities of a pixel's channels, each given those before it."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Protocol, Self

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, constraints

from lowerbound.model.distributions import tree
from lowerbound.noise import Noise


class Heads(Protocol):
    """A module of features (*batch, H, W, F) and the levels of earlier channels (*batch, H, W) to the next's logits."""

    def __call__(self, features: Tensor, before: Sequence[Tensor]) -> Tensor: ...

    def parameters(self) -> Iterator[nn.Parameter]: ...

    def requires_grad_(self, requires_grad: bool = True) -> Self: ...


class PixelCategorical(Distribution):
    """P(x) = prod over pixels and channels of P(x_c | x_<c, features), a probability for every level.

    Channels of a pixel follow one another (van den Oord et al. 2016, section 2.1); pixels are independent.

    Args:
        features: (*batch, F, H, W).
        heads: to logits of a channel.
        channels: C.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012 (torch's own declaration)

    def __init__(self, features: Tensor, heads: Heads, channels: int, validate_args: bool | None = None) -> None:
        self.features, self.heads, self.channels = features, heads, channels
        event = torch.Size([channels, *features.shape[-2:]])
        super().__init__(features.shape[:-3], event, validate_args=validate_args)

    def log_levels(self, before: Sequence[Tensor], batch: torch.Size) -> Tensor:
        """Log-probabilities (*batch, H, W, K) of the channel after those in `before`, (*batch, H, W) each."""
        features = self.features.expand(*batch, *self.features.shape[-3:]).movedim(-3, -1)
        return torch.log_softmax(self.heads(features, before), dim=-1)

    def log_prob(self, value: Tensor) -> Tensor:
        batch = torch.broadcast_shapes(self.batch_shape, value.shape[:-3])
        levels = list(value.expand(*batch, *self.event_shape).long().unbind(-3))
        total = self.features.new_zeros(batch)
        for channel, level in enumerate(levels):
            log_p = self.log_levels(levels[:channel], batch).gather(-1, level.unsqueeze(-1))
            total = total + log_p.sum(dim=(-3, -2, -1))
        return total


tree.register(PixelCategorical, {"features": "features"}, ["heads", "channels"])


@tree.point.register
def _point(distribution: PixelCategorical) -> Tensor:
    """The most probable level of each channel given those of the channels before it."""
    levels: list[Tensor] = []
    for _ in range(distribution.channels):
        levels.append(distribution.log_levels(levels, distribution.batch_shape).argmax(dim=-1))
    return torch.stack(levels, dim=-3)


@tree.detach.register
def _detach(distribution: PixelCategorical) -> PixelCategorical:
    d = distribution
    return PixelCategorical(d.features.detach(), copy.deepcopy(d.heads).requires_grad_(False), d.channels)


@tree.draw_row(PixelCategorical)
def _draw(distribution: PixelCategorical, noise: Noise, samples: int, event: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """One channel after the other by the Gumbel trick."""
    lead, grid = event[:-3], event[-2:]
    batch = torch.Size([samples, noise.rows, *lead])
    levels: list[Tensor] = []
    total = distribution.features.new_zeros(batch)
    for channel in range(distribution.channels):
        log_p = distribution.log_levels(levels, batch)
        gumbel = noise.child(f"channel{channel}").gumbel(samples, (*lead, *grid, log_p.shape[-1])).to(log_p.dtype)
        level = (log_p + gumbel).argmax(dim=-1)
        total = total + log_p.gather(-1, level.unsqueeze(-1)).sum(dim=(-3, -2, -1))
        levels.append(level)
    return torch.stack(levels, dim=-3), total

"""Mixtures of logistic densities on integer levels (Salimans et al. 2017, "PixelCNN++")."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.nn.functional import logsigmoid

from lowerbound.model.distributions import tree
from lowerbound.noise import Noise


class LogisticMixture(Distribution):
    """P(x) = sum_k w_k [F((v + h - m_k) / s_k) - F((v - h - m_k) / s_k)] for levels x = 0 ... L - 1.

    F is the logistic distribution function, v = 2 x / (L - 1) - 1 the level on [-1, 1] and h = 1 / (L - 1) half a step.
    The first level's bin reaches down to minus infinity and the last one's up to infinity, so that the probabilities
    add up to 1 (Salimans et al. 2017, eq. 2).

    Args:
        logits: of the weights, (*batch, K).
        loc: m, on the scale of v, (*batch, K).
        log_scale: log s, (*batch, K).
        levels: L.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012 (torch's own declaration)

    def __init__(
        self, logits: Tensor, loc: Tensor, log_scale: Tensor, levels: int, validate_args: bool | None = None
    ) -> None:
        self.logits, self.loc, self.log_scale, self.levels = logits, loc, log_scale, levels
        super().__init__(loc.shape[:-1], validate_args=validate_args)

    def log_prob(self, value: Tensor) -> Tensor:
        each = log_bins(value.unsqueeze(-1), self.loc, self.log_scale, self.levels)
        return torch.logsumexp(torch.log_softmax(self.logits, dim=-1) + each, dim=-1)


class PixelLogisticMixture(Distribution):
    """A `LogisticMixture` of whole pixels: channels share the component, and each follows those before it.

    The location of channel c is m_c + sum_{j < c} a_cj v_j, with v_j the values of earlier channels on [-1, 1]
    (Salimans et al. 2017, section 2.2).

    Args:
        logits: of the weights, (*batch, 1, H, W, K).
        loc: m, (*batch, C, H, W, K).
        log_scale: (*batch, C, H, W, K).
        follow: a, one plane for each pair (c, j < c), row by row, (*batch, C (C - 1) / 2, H, W, K).
        levels: L.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012 (torch's own declaration)

    def __init__(
        self,
        logits: Tensor,
        loc: Tensor,
        log_scale: Tensor,
        follow: Tensor,
        levels: int,
        validate_args: bool | None = None,
    ) -> None:
        self.logits, self.loc, self.log_scale, self.follow, self.levels = logits, loc, log_scale, follow, levels
        super().__init__(loc.shape[:-4], loc.shape[-4:-1], validate_args=validate_args)

    def location(self, channel: int, before: Sequence[Tensor]) -> Tensor:
        """Location of a channel (*batch, H, W, K), given the values of those before it on [-1, 1]."""
        location = self.loc.select(-4, channel)
        first = channel * (channel - 1) // 2
        for other, value in enumerate(before[:channel]):
            location = location + self.follow.select(-4, first + other) * value
        return location

    def log_prob(self, value: Tensor) -> Tensor:
        seen = [channel.unsqueeze(-1) for channel in value.unbind(-3)]
        before = [2 * channel / (self.levels - 1) - 1 for channel in seen]
        log_p = torch.log_softmax(self.logits.squeeze(-4), dim=-1)
        for index, channel in enumerate(seen):
            scale = self.log_scale.select(-4, index)
            log_p = log_p + log_bins(channel, self.location(index, before), scale, self.levels)
        return torch.logsumexp(log_p, dim=-1).sum(dim=(-2, -1))


def log_bins(value: Tensor, loc: Tensor, log_scale: Tensor, levels: int) -> Tensor:
    """Log of a logistic density's mass in the bin of level `value`; all arguments broadcast.

    F(a) - F(b) = F(a) F(-b) (1 - exp(b - a)) is a product, so that nothing cancels however far out the bin is.
    """
    half = 1 / (levels - 1)
    steep = torch.exp(-log_scale)
    away = 2 * half * value - 1 - loc
    below_top, above_bottom = logsigmoid(steep * (away + half)), logsigmoid(-steep * (away - half))
    inside = below_top + above_bottom + torch.log(-torch.expm1(-2 * half * steep))
    return torch.where(value <= 0, below_top, torch.where(value >= levels - 1, above_bottom, inside))


tree.register(LogisticMixture, {"logits": "logits", "loc": "loc", "log_scale": "log_scale"}, ["levels"])
tree.register(
    PixelLogisticMixture,
    {"logits": "logits", "loc": "loc", "log_scale": "log_scale", "follow": "follow"},
    ["levels"],
)


@tree.point.register
def _point(distribution: LogisticMixture) -> Tensor:
    """The mean of the components' locations, each cut to the range, as a (real-valued) level."""
    weights = torch.softmax(distribution.logits, dim=-1)
    mean = (weights * distribution.loc.clamp(-1, 1)).sum(dim=-1)
    return _level(mean, distribution.levels)


@tree.draw_row(LogisticMixture)
def _draw(distribution: LogisticMixture, noise: Noise, samples: int, event: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """A component by the Gumbel trick, a logistic number, and the nearest level."""
    d, components = distribution, distribution.logits.shape[-1]
    gumbel = noise.child("component").gumbel(samples, (*event, components)).to(d.logits.dtype)
    chosen = (d.logits + gumbel).argmax(dim=-1, keepdim=True)
    loc, log_scale = (t.expand(gumbel.shape).gather(-1, chosen).squeeze(-1) for t in (d.loc, d.log_scale))
    value = loc + log_scale.exp() * logistic(noise.child("value").uniform(samples, event).to(loc.dtype))
    z = _level(value, d.levels).round().clamp(0, d.levels - 1)
    return z, d.log_prob(z)


@tree.point.register
def _point_pixel(distribution: PixelLogisticMixture) -> Tensor:
    """The mean of the components' locations, each cut to the range and followed by the next channel."""
    d = distribution
    weights = torch.softmax(d.logits.squeeze(-4), dim=-1)
    before: list[Tensor] = []
    for index in range(d.event_shape[0]):
        before.append(d.location(index, before).clamp(-1, 1))
    return torch.stack([_level((weights * v).sum(dim=-1), d.levels) for v in before], dim=-3)


@tree.draw_row(PixelLogisticMixture)
def _draw_pixel(
    distribution: PixelLogisticMixture, noise: Noise, samples: int, event: tuple[int, ...]
) -> tuple[Tensor, Tensor]:
    """A component by the Gumbel trick, then one channel after the other."""
    d, components = distribution, distribution.logits.shape[-1]
    gumbel = noise.child("component").gumbel(samples, (*event[1:], components)).to(d.logits.dtype)
    chosen = (d.logits.squeeze(-4) + gumbel).argmax(dim=-1, keepdim=True)
    u = noise.child("value").uniform(samples, event).to(d.logits.dtype)
    levels: list[Tensor] = []
    for index in range(event[0]):
        before = [(2 * level / (d.levels - 1) - 1).unsqueeze(-1) for level in levels]
        loc, log_scale = d.location(index, before), d.log_scale.select(-4, index)
        loc, log_scale = (t.expand(gumbel.shape).gather(-1, chosen).squeeze(-1) for t in (loc, log_scale))
        value = loc + log_scale.exp() * logistic(u.select(-3, index))
        levels.append(_level(value, d.levels).round().clamp(0, d.levels - 1))
    z = torch.stack(levels, dim=-3)
    return z, d.log_prob(z)


def _level(value: Tensor, levels: int) -> Tensor:
    """From [-1, 1] to the scale of levels."""
    return 0.5 * (value + 1) * (levels - 1)


def logistic(u: Tensor) -> Tensor:
    """Standard logistic numbers from uniform ones."""
    tiny = torch.finfo(torch.float32).eps / 2
    u = u.clamp(tiny, 1 - tiny)
    return torch.log(u) - torch.log1p(-u)

"""Things with a value or a measure but no density."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from lowerbound.errors import NotABoundError
from lowerbound.model.distributions import tree
from lowerbound.noise import Noise


class Delta(Distribution):
    """All mass at one value: a deterministic code, or the sample of an implicit model.

    Args:
        value: (*batch, *event).
        event_ndim: how many of the last axes are the event.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012 (torch's own declaration)
    has_density = False

    def __init__(self, value: Tensor, event_ndim: int, validate_args: bool | None = None) -> None:
        self.value, self.event_ndim = value, event_ndim
        split = value.ndim - event_ndim
        super().__init__(value.shape[:split], value.shape[split:], validate_args=validate_args)

    def log_prob(self, value: Tensor) -> Tensor:
        raise NotABoundError(
            "a deterministic code or an implicit sample has no density, so it has no likelihood, rate or bound; use a "
            "posterior with a density (`gaussian`)."
        )


class Flat(Distribution):
    """The Lebesgue measure: log-density 0 everywhere, so that a rate against it is the negative entropy.

    `Stack` uses it as the prior of its first stage, whose codes are then scored by the second.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012

    def __init__(self, event: torch.Size, validate_args: bool | None = None) -> None:
        self.event = event
        super().__init__(torch.Size(), event, validate_args=validate_args)

    def log_prob(self, value: Tensor) -> Tensor:
        kind = value.dtype if value.is_floating_point() else torch.float32
        return value.new_zeros(value.shape[: value.ndim - len(self.event_shape)], dtype=kind)


tree.register(Delta, {"value": "value"}, ["event_ndim"])
tree.register(Flat, {}, ["event"])


@tree.point.register
def _point_delta(distribution: Delta) -> Tensor:
    return distribution.value


@tree.draw_row(Delta)
def _draw_delta(distribution: Delta, noise: Noise, samples: int, event: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    batch = torch.broadcast_shapes(distribution.batch_shape, (samples, noise.rows))
    return distribution.value.expand(*batch, *event), distribution.value.new_zeros(batch)

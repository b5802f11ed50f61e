"""Flows: a density pushed through a bijection (Rezende & Mohamed 2015)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Protocol, Self

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, constraints

from lowerbound.model.distributions import tree
from lowerbound.model.distributions.folding import folded
from lowerbound.noise import Noise

Mapped = tuple[Tensor, Tensor]


class Bijection(Protocol):
    """An invertible module of z (N, D), given features h (N, C) or None; both ways also say log |det dy/dz| (N,)."""

    def __call__(self, z: Tensor, h: Tensor | None) -> Mapped: ...

    def inverse(self, y: Tensor, h: Tensor | None) -> Mapped: ...

    def parameters(self) -> Iterator[nn.Parameter]: ...

    def requires_grad_(self, requires_grad: bool = True) -> Self: ...


class Flow(Distribution):
    """y = f(z; h) with z from a base: log p(y) = log base(z) - log |det df/dz| (Rezende & Mohamed 2015, eq. 5).

    The bijection works in its own precision, and never in the reduced one of autocast: an inverse undoes nothing there.

    Args:
        base: the density of z, with all batch axes.
        features: h, (*batch, C); None where the bijection needs none.
        bijection: over the event, flattened.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012 (torch's own declaration)

    def __init__(
        self, base: Distribution, features: Tensor | None, bijection: Bijection, validate_args: bool | None = None
    ) -> None:
        self.base, self.features, self.bijection = base, features, bijection
        super().__init__(base.batch_shape, base.event_shape, validate_args=validate_args)

    def log_prob(self, value: Tensor) -> Tensor:
        batch = torch.broadcast_shapes(self.batch_shape, value.shape[: value.ndim - len(self.event_shape)])
        z, log_det = self._map(self.bijection.inverse, value.expand(*batch, *self.event_shape))
        return self.base.log_prob(z) - log_det

    def push(self, z: Tensor) -> Mapped:
        """f(z) (*batch, *event) and log |det df/dz| (*batch)."""
        return self._map(self.bijection, z)

    def _map(self, function: Callable[[Tensor, Tensor | None], Mapped], values: Tensor) -> Mapped:
        batch = values.shape[: values.ndim - len(self.event_shape)]
        dtype = next(self.bijection.parameters()).dtype
        h = folded(self.features, batch)
        rows = values.reshape(-1, self.event_shape.numel()).to(dtype)
        with torch.autocast(values.device.type, enabled=False):
            mapped, log_det = function(rows, None if h is None else h.to(dtype))
        return mapped.reshape(values.shape).to(values.dtype), log_det.reshape(batch).to(values.dtype)


tree.register(Flow, {"base": "base", "features": "features"}, ["bijection"])


@tree.point.register
def _point_flow(distribution: Flow) -> Tensor:
    """The image of the base's point."""
    return distribution.push(tree.point(distribution.base))[0]


@tree.detach.register
def _detach_flow(distribution: Flow) -> Flow:
    d = distribution
    features = None if d.features is None else d.features.detach()
    return Flow(tree.detach(d.base), features, copy.deepcopy(d.bijection).requires_grad_(False))


@tree.draw_row(Flow)
def _draw_flow(distribution: Flow, noise: Noise, samples: int, event: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    z, log_q = tree.draw_inner(distribution.base, noise, samples, event)
    y, log_det = distribution.push(z)
    return y, log_q - log_det

"""A density over a grid, one place after the other: a PixelCNN, or a transformer over a raster of tokens."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Protocol, Self

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, constraints

from lowerbound.model.distributions import tree
from lowerbound.model.distributions.folding import folded
from lowerbound.model.spec import Shape
from lowerbound.noise import Noise

Place = tuple[slice, ...]


class Causal(Protocol):
    """A module of rows x (N, *shape), given features h (N, C) or None, to p(x_i | x_<i, h) of all places i at once.

    Attributes:
        shape: of a row as the module sees it.
    """

    shape: Shape

    def __call__(self, x: Tensor, h: Tensor | None) -> Distribution: ...

    def unroll(self, x: Tensor, h: Tensor | None) -> Iterator[tuple[Place, Distribution]]:
        """Each place in turn and its density given the places before it, which the caller has written into x."""
        ...

    def parameters(self) -> Iterator[nn.Parameter]: ...

    def requires_grad_(self, requires_grad: bool = True) -> Self: ...


class Raster(Distribution):
    """p(x) = prod_i p(x_i | x_<i, h) over the places of a grid, row by row: one pass to score, one step each to draw.

    Draws have no gradient.

    Args:
        features: h, (*batch, C); None where the network needs none.
        network: causal.
        event: shape of the variable, of as many values as the network's `shape`.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012 (torch's own declaration)

    def __init__(
        self, features: Tensor | None, network: Causal, event: torch.Size, validate_args: bool | None = None
    ) -> None:
        self.features, self.network, self.event = features, network, event
        batch = torch.Size() if features is None else features.shape[:-1]
        super().__init__(batch, event, validate_args=validate_args)

    def log_prob(self, value: Tensor) -> Tensor:
        batch = torch.broadcast_shapes(self.batch_shape, value.shape[: value.ndim - len(self.event)])
        rows = folded(value, batch, len(self.event)).reshape(-1, *self.network.shape)
        log_p: Tensor = self.network(rows, self._known(batch)).log_prob(rows)
        return log_p.reshape(batch)

    @torch.no_grad()
    def generate(self, batch: torch.Size, choose: Callable[[Distribution, int], Tensor]) -> Tensor:
        """Values (*batch, *event), place by place.

        Args:
            batch: of the answer.
            choose: from the density of a place (batch shape `batch`, or (1,) for none) and its number to its value.
        """
        shape = batch or torch.Size([1])
        x = next(self.network.parameters()).new_zeros(shape.numel(), *self.network.shape)
        for number, (place, p) in enumerate(self.network.unroll(x, self._known(shape))):
            value = choose(tree.map_rows(p, lambda tensor, axis: tensor.unflatten(axis, shape)), number)
            x[(slice(None), *place)] = value.flatten(0, len(shape) - 1).to(x.dtype)
        return x.reshape(*batch, *self.event)

    def _known(self, batch: torch.Size) -> Tensor | None:
        """Features of as many rows as the batch has."""
        h = folded(self.features, batch)
        return None if h is None else h.to(next(self.network.parameters()).dtype)


tree.register(Raster, {"features": "features"}, ["network", "event"])


@tree.point.register
def _point_raster(distribution: Raster) -> Tensor:
    """Each place at the whole number nearest to its point, given those of the places before it."""
    return distribution.generate(distribution.batch_shape, lambda p, number: tree.point(p).round())


@tree.detach.register
def _detach_raster(distribution: Raster) -> Raster:
    d = distribution
    features = None if d.features is None else d.features.detach()
    return Raster(features, copy.deepcopy(d.network).requires_grad_(False), d.event)


@tree.draw_row(Raster)
def _draw_raster(distribution: Raster, noise: Noise, samples: int, event: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    lead = event[: len(event) - len(distribution.event)]
    log_q: list[Tensor] = []

    def drawn(p: Distribution, number: int) -> Tensor:
        value, log_p = tree.draw_inner(p, noise.child(f"place{number}"), samples, (*lead, *p.event_shape))
        log_q.append(log_p)
        return value

    z = distribution.generate(torch.Size([samples, noise.rows, *lead]), drawn)
    return z, torch.stack(log_q).sum(dim=0)

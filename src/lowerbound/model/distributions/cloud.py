"""Clouds: points that are independent draws of one density, so that their order means nothing."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from lowerbound.model.distributions import tree
from lowerbound.noise import Noise, SameNoise


class Cloud(Distribution):
    """P points, independent given the row: log p(x) = sum_i log p(x_i), the same in every order of the points.

    Args:
        each: the density of one point, with all batch axes.
        points: P.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012 (torch's own declaration)

    def __init__(self, each: Distribution, points: int, validate_args: bool | None = None) -> None:
        self.each, self.points = each, points
        super().__init__(each.batch_shape, torch.Size([points, *each.event_shape]), validate_args=validate_args)

    def all_points(self) -> Distribution:
        """The density of one point with one more batch axis, (*batch, P)."""

        def repeat(tensor: Tensor, rows: int) -> Tensor:
            shape = (*tensor.shape[: rows + 1], self.points, *tensor.shape[rows + 1 :])
            return tensor.unsqueeze(rows + 1).expand(shape)

        return tree.map_rows(self.each, repeat)

    def log_prob(self, value: Tensor) -> Tensor:
        return self.all_points().log_prob(value).sum(-1)


tree.register(Cloud, {"each": "each"}, ["points"])


@tree.detach.register
def _detach_cloud(distribution: Cloud) -> Cloud:
    return Cloud(tree.detach(distribution.each), distribution.points)


@tree.point.register
def _point_cloud(distribution: Cloud) -> Tensor:
    """One draw of the points, always from the same noise: there is no mean of a set."""
    rows = distribution.batch_shape[-1] if distribution.batch_shape else 1
    z, _ = tree.draw(distribution, SameNoise(0, rows))
    return z.reshape(*distribution.batch_shape, *distribution.event_shape)


@tree.draw_row(Cloud)
def _draw_cloud(distribution: Cloud, noise: Noise, samples: int, event: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    z, log_q = tree.draw_inner(distribution.all_points(), noise, samples, event)
    return z, log_q.sum(-1)

"""The product of densities over the columns of a table, with missing values."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from lowerbound.model.distributions import tree
from lowerbound.noise import Noise


class ColumnProduct(Distribution):
    """log p(x) = sum of log p(x_d) over the columns d that are there; NaN is missing.

    Values that are missing at random are integrated out by leaving their factor away (Nazabal et al. 2020).

    Args:
        blocks: densities of one kind of column each, with batch shape (*batch, columns of the block).
        places: the columns of each block; together each column once.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012 (torch's own declaration)

    def __init__(
        self,
        blocks: tuple[Distribution, ...],
        places: tuple[tuple[int, ...], ...],
        validate_args: bool | None = None,
    ) -> None:
        self.blocks, self.places = blocks, places
        width = sum(len(some) for some in places)
        super().__init__(blocks[0].batch_shape[:-1], torch.Size([width]), validate_args=validate_args)

    def log_prob(self, value: Tensor) -> Tensor:
        return self.log_prob_per_column(value).sum(dim=-1)

    def log_prob_per_column(self, value: Tensor) -> Tensor:
        """log p(x_d) of each column, (*batch, D), nats; 0 where it is missing."""
        there = ~value.isnan()
        # The missing are replaced before the density is asked, so that no gradient is NaN.
        known = torch.where(there, value, torch.zeros_like(value))
        parts = [block.log_prob(known[..., list(some)]) for block, some in zip(self.blocks, self.places, strict=True)]
        each = self.in_order(parts)
        return torch.where(there, each, torch.zeros_like(each))

    def in_order(self, parts: list[Tensor]) -> Tensor:
        """One number per column, by block, to the order of the columns: (*batch, D)."""
        columns = [column for some in self.places for column in some]
        order = sorted(range(len(columns)), key=columns.__getitem__)
        dtype = next((part.dtype for part in parts if part.is_floating_point()), torch.float32)
        return torch.cat([part.to(dtype) for part in parts], dim=-1)[..., order]


tree.register(ColumnProduct, {"blocks": "blocks"}, ["places"])


@tree.point.register
def _point(distribution: ColumnProduct) -> Tensor:
    """The point of each column: a mean, a most probable category, a probability."""
    return distribution.in_order([tree.point(block) for block in distribution.blocks])


@tree.draw_row(ColumnProduct)
def _draw(distribution: ColumnProduct, noise: Noise, samples: int, event: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    drawn = [
        tree.draw(tree.independent(block, 1), noise.child(f"block{index}"), samples)
        for index, block in enumerate(distribution.blocks)
    ]
    return distribution.in_order([z for z, _ in drawn]), torch.stack([log_q for _, log_q in drawn]).sum(dim=0)

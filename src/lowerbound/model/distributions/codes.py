"""The posterior of a vector-quantised model: one code per position, with certainty."""

from __future__ import annotations

from torch import Tensor
from torch.distributions import Categorical, Distribution, Independent, constraints
from torch.distributions.kl import register_kl

from lowerbound.model.distributions import tree
from lowerbound.noise import Noise


class Codes(Distribution):
    """All mass on given integer codes: log-probability 0 there, so the rate is -log p(codes).

    Args:
        indices: (*batch, *positions), integers in [0, size).
        positions_ndim: how many of the last axes are positions.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012 (torch's own declaration)

    def __init__(self, indices: Tensor, positions_ndim: int, validate_args: bool | None = None) -> None:
        self.indices, self.positions_ndim = indices, positions_ndim
        split = indices.ndim - positions_ndim
        super().__init__(indices.shape[:split], indices.shape[split:], validate_args=validate_args)

    def log_prob(self, value: Tensor) -> Tensor:
        same = (value == self.indices).flatten(value.ndim - self.positions_ndim).all(dim=-1)
        return same.float().log()


tree.register(Codes, {"indices": "indices"}, ["positions_ndim"])


@register_kl(Codes, Independent)
def _kl_codes(q: Codes, p: Independent) -> Tensor:
    """KL of a certain code from a discrete prior: -log p(codes) (log K per position where p is uniform)."""
    if not isinstance(p.base_dist, Categorical):
        raise NotImplementedError
    log_p: Tensor = p.log_prob(q.indices)
    return -log_p


@tree.point.register
def _point_codes(distribution: Codes) -> Tensor:
    return distribution.indices


@tree.draw_row(Codes)
def _draw_codes(distribution: Codes, noise: Noise, samples: int, event: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    z = distribution.indices.expand(samples, noise.rows, *event)
    return z, z.new_zeros(samples, noise.rows).float()

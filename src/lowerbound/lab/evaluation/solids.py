"""What solids are compared by: voxels, clouds of points, and queries of what lies inside."""

from __future__ import annotations

import torch
from torch import Tensor

from lowerbound.errors import NotSupportedError
from lowerbound.lab.evaluation.result import Result, mean_result
from lowerbound.model.spec import DataSpec

RANKS = (0.1, 0.25, 0.5, 0.75, 0.9)
INSIDE = 0.5  # a probability from here on counts as inside
ROWS = 64  # at a time


def descriptors(raw: Tensor, spec: DataSpec) -> Tensor:
    """Numbers about the shape of each solid that do not depend on the order of its points, (N, 18) or (N, 17).

    Its volume (not of clouds, which have none), the centre of its mass (3), its extent along each axis (3), the
    covariance of its mass (6), and quantiles of the distance from its centre (5). An empty solid is all 0.

    Raises:
        NotSupportedError: rows that are neither voxels of 0 and 1, a cloud nor queries, in three dimensions.
    """
    points, mass = _mass(raw, spec)
    total = mass.sum(1, keepdim=True)
    share = mass / total.clamp_min(1)
    centre = (share[..., None] * points).sum(1)
    own = points - centre[:, None]
    covariance = torch.einsum("np,npi,npj->nij", share, own, own)
    upper = torch.triu_indices(3, 3)
    there = mass[..., None] > 0
    high = torch.where(there, points, -torch.inf).amax(1)
    low = torch.where(there, points, torch.inf).amin(1)
    extent = torch.where(total > 0, high - low, 0.0)
    found = [centre, extent, covariance[:, upper[0], upper[1]], _quantiles(own.norm(dim=2), share)]
    volume = [] if spec.geometry == "cloud" else [total / mass.shape[1]]
    return torch.cat([*volume, *found], dim=1)


def chamfer(real: Tensor, made: Tensor) -> Tensor:
    """The Chamfer distance of clouds (N, P, D) and (N, Q, D), (N,): squared distances to the nearest point, both ways.

    Fan et al. 2017, eq. 1, with means in place of sums. It is not 0 for two draws of one surface.
    """
    parts = []
    for one, other in zip(real.double().split(ROWS), made.double().split(ROWS), strict=True):
        distances = torch.cdist(one, other).square()
        parts.append(distances.amin(2).mean(1) + distances.amin(1).mean(1))
    return torch.cat(parts)


def overlap(real: Tensor, made: Tensor) -> Tensor:
    """The volume that two solids share over that of both together, (N,), of occupancies or probabilities (N, ...)."""
    one, other = (rows.flatten(1).float() >= INSIDE for rows in (real, made))
    return (one & other).sum(1).double() / (one | other).sum(1).clamp_min(1)


def cloud_results(real: Tensor, made: Tensor) -> dict[str, Result]:
    """How far reconstructed clouds are from those that they were made of."""
    return {"chamfer_distance": mean_result(chamfer(real, made), "estimate")}


def _mass(raw: Tensor, spec: DataSpec) -> tuple[Tensor, Tensor]:
    """Points (N, P, 3), and 1 for those that belong to the solid, (N, P)."""
    event = spec.event
    if spec.geometry == "cloud" and event[1] == 3:
        return raw.float(), torch.ones(raw.shape[:2])
    if spec.geometry == "queries":
        return raw[..., :3].float(), (raw[..., 3] >= INSIDE).float()
    if spec.geometry != "grid" or len(event) != 4 or event[0] != 1 or spec.levels != 2:
        raise NotSupportedError(
            f"shapes are of voxels of 0 and 1, clouds in space or queries, and these rows have shape {list(event)}; "
            "choose the features `raw`."
        )
    lines = [(torch.arange(side) + 0.5) / side - 0.5 for side in event[1:]]
    inside = (raw.float() >= INSIDE).flatten(1).float()
    return torch.cartesian_prod(*lines).expand(len(raw), -1, -1), inside


def _quantiles(values: Tensor, weights: Tensor) -> Tensor:
    """Weighted quantiles of each row, (N, P) to (N, 5)."""
    ordered, order = values.sort(dim=1)
    reached = weights.gather(1, order).cumsum(1)
    ranks = torch.tensor(RANKS).expand(len(values), -1).contiguous()
    place = torch.searchsorted(reached, ranks).clamp_max(values.shape[1] - 1)
    return torch.where(reached[:, -1:] > 0, ordered.gather(1, place), 0.0)

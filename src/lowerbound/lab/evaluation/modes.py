"""How well samples cover the modes of a known mixture."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lowerbound.lab.evaluation.result import Result, mean_result, number

NEAR = 3  # standard deviations


def mode_results(points: Tensor, centres: Tensor, sigma: float, prefix: str) -> dict[str, Result]:
    """Distance to the nearest centre, and how points share the centres.

    Args:
        points: (N, D).
        centres: (K, D).
        sigma: standard deviation around each. A point within three of them is near, and a centre with a near point is
            covered (Srivastava et al. 2017, section 4).
        prefix: of the results' names: "generated" (points of p(x|z)), "observed" (draws of it) or "real".
    """
    distance, nearest = torch.cdist(points.double(), centres.double()).min(dim=1)
    shares = torch.bincount(nearest, minlength=len(centres)) / len(points)
    near = distance <= NEAR * sigma
    return {
        f"{prefix}_distance_to_centre": mean_result(distance, "estimate"),
        f"{prefix}_within_1_of_centre": mean_result((distance <= 1).double(), "estimate"),
        f"{prefix}_near_share": mean_result(near.double(), "estimate"),
        f"{prefix}_centres_covered": number(float(nearest[near].unique().numel()), "estimate", len(points)),
        f"{prefix}_share_per_centre": number(shares, "estimate", len(points)),
    }


def true_nll(points: Tensor, centres: Tensor, sigma: float) -> Result:
    """-log p of points under the equal mixture of N(centre, sigma^2 I), the best that any model can expect, nats."""
    squared = torch.cdist(points.double(), centres.double()).square()
    dimensions = points.shape[1]
    log_p = torch.logsumexp(-0.5 * squared / sigma**2, dim=1) - math.log(len(centres))
    return mean_result(0.5 * dimensions * math.log(2 * math.pi * sigma**2) - log_p, "exact")

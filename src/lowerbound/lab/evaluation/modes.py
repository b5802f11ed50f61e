"""How well samples cover the modes of a known mixture, or the places where rows are."""

from __future__ import annotations

import math

import torch
from sklearn.cluster import KMeans
from torch import Tensor

from lowerbound.errors import TooFewError
from lowerbound.lab.evaluation.result import Result, mean_result, number

NEAR = 3  # standard deviations
PLACES = 20  # into which rows part the space
PER_PLACE = 10  # rows that a place needs
SELDOM = 0.2  # samples in a place over rows in it, as shares, below which a model has lost it


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


def true_log_density(points: Tensor, centres: Tensor, sigma: float) -> Tensor:
    """log p of points (N, D) under the equal mixture of N(centre, sigma^2 I), (N,), nats: the best to be expected."""
    squared = torch.cdist(points.double(), centres.double()).square()
    dimensions = points.shape[1]
    log_p = torch.logsumexp(-0.5 * squared / sigma**2, dim=1) - math.log(len(centres))
    return log_p - 0.5 * dimensions * math.log(2 * math.pi * sigma**2)


def lost_rows(known: Tensor, real: Tensor, made: Tensor) -> Tensor:
    """Which held-out rows lie in places that samples all but leave out, (N,) bool.

    Training rows part the space (k-means); rows and samples are counted by place (Richardson & Weiss 2018, section 3).
    Modes need not be known, and it does not matter how sharp samples are, for each goes to the nearest place.

    Args:
        known: training rows, (M, *event).
        real: held-out rows, (N, *event).
        made: samples, (S, *event).

    Raises:
        TooFewError: fewer than 20 rows of a kind.
    """
    places = min(PLACES, len(known) // PER_PLACE)
    if places < 2 or min(len(real), len(made)) < 2 * PER_PLACE:
        raise TooFewError(f"modes are looked for in {2 * PER_PLACE} rows of each kind at least.")
    parted = KMeans(places, n_init=4, random_state=0).fit(known.flatten(1).double().numpy())
    homes, made_homes = (
        torch.from_numpy(parted.predict(rows.flatten(1).double().numpy())).long() for rows in (real, made)
    )
    rows, samples = (torch.bincount(each, minlength=places) / len(each) for each in (homes, made_homes))
    return (samples < SELDOM * rows)[homes]

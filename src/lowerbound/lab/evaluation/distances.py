"""Distances of two sets of features, equally many rows of each: by their moments, and by a kernel."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lowerbound.errors import DataError, TooFewError
from lowerbound.lab.evaluation.result import Result, jackknife

FEWEST = 50  # rows of each kind for which these numbers mean anything
GROUPS = 10  # of rows, for standard errors
BLOCK = 1000  # rows of each estimate of the kernel distance, at most


def frechet_distance(real: Tensor, made: Tensor) -> Result:
    """The squared Fréchet distance of two Gaussians (Heusel et al. 2017, eq. 6), with a jackknife standard error.

    Biased upwards, the more so the fewer the rows: compare at equal N only.

    Raises:
        TooFewError: no more rows than features, so that the covariance has no inverse.
    """
    whole, left_out = frechet_jackknife(real, made)
    return Result(whole, "estimate", len(real), jackknife(left_out.tolist()))


def frechet_jackknife(real: Tensor, made: Tensor, groups: int = GROUPS) -> tuple[float, Tensor]:
    """The squared Fréchet distance, and what it is without each of some groups of rows, (groups,) float64.

    Raises:
        TooFewError: no more rows than features, so that the covariance has no inverse.
    """
    count = equal_rows(real, made)
    size = real.shape[1]
    if count <= size:
        raise TooFewError(
            f"{count} rows of each kind are too few for features of {size} dimensions: give more than {size}."
        )
    shift = real.mean(dim=0).double()
    whole = [_moments(features, shift) for features in (real, made)]
    left_out = []
    # A group's moments are made when they are needed: all of them at once would need more memory than the features.
    for one, other in zip(real.tensor_split(groups), made.tensor_split(groups), strict=True):
        left_out.append(_frechet(_less(whole[0], _moments(one, shift)), _less(whole[1], _moments(other, shift))))
    return _frechet(*whole), torch.tensor(left_out, dtype=torch.float64)


def kernel_distance(real: Tensor, made: Tensor) -> Result:
    """The squared maximum mean discrepancy with the kernel (x.y / D + 1)^3 (Binkowski et al. 2018, section 4).

    Unbiased: the mean over blocks of rows, at most 1,000 each and ten or more, whose spread gives the standard error.
    """
    count = equal_rows(real, made)
    blocks = max(GROUPS, math.ceil(count / BLOCK))
    pairs = zip(real.tensor_split(blocks), made.tensor_split(blocks), strict=True)
    found = torch.tensor([_discrepancy(one.double(), other.double()) for one, other in pairs], dtype=torch.float64)
    return Result(float(found.mean()), "estimate", count, float(found.std() / math.sqrt(blocks)))


def equal_rows(real: Tensor, made: Tensor) -> int:
    if real.ndim != 2 or real.shape != made.shape:
        raise DataError(
            f"features of shape {list(real.shape)} and {list(made.shape)} cannot be compared: give equally many rows "
            "of each, from one extractor."
        )
    if len(real) < FEWEST:
        raise TooFewError(f"{len(real)} rows of each kind are too few to compare: give {FEWEST} at least.")
    for kind, features in (("real", real), ("made", made)):
        if not bool(torch.isfinite(features).all()):
            raise DataError(f"a feature of the {kind} rows is NaN or an infinity.")
    return len(real)


Moments = tuple[int, Tensor, Tensor]  # rows, their sum, and the sum of their outer products


def _moments(features: Tensor, shift: Tensor) -> Moments:
    total, products = torch.zeros_like(shift), shift.new_zeros(len(shift), len(shift))
    for part in features.split(4096):
        rows = part.double() - shift
        total += rows.sum(dim=0)
        products.addmm_(rows.T, rows)
    return len(features), total, products


def _less(whole: Moments, part: Moments) -> Moments:
    return whole[0] - part[0], whole[1] - part[1], whole[2] - part[2]


def _frechet(one: Moments, other: Moments) -> float:
    (mean, covariance), (mean_made, covariance_made) = _gaussian(one), _gaussian(other)
    values, vectors = torch.linalg.eigh(covariance)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    shared = torch.linalg.eigvalsh(root @ covariance_made @ root).clamp(min=0).sqrt().sum()
    return float((mean - mean_made).square().sum() + covariance.trace() + covariance_made.trace() - 2 * shared)


def _gaussian(moments: Moments) -> tuple[Tensor, Tensor]:
    count, total, products = moments
    mean = total / count
    return mean, (products - count * torch.outer(mean, mean)) / (count - 1)


def _discrepancy(real: Tensor, made: Tensor) -> float:
    def kernel(one: Tensor, other: Tensor) -> Tensor:
        return (one @ other.T / one.shape[1] + 1) ** 3

    def among(rows: Tensor) -> Tensor:
        own = kernel(rows, rows)
        return (own.sum() - own.trace()) / (len(rows) * (len(rows) - 1))

    return float(among(real) + among(made) - 2 * kernel(real, made).mean())

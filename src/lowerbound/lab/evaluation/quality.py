"""Whether made rows are distributed as real ones: distances of two sets of features, equally many of each.

All take features (N, D) of real and of made rows.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.stats import binom
from sklearn.ensemble import RandomForestClassifier
from torch import Tensor

from lowerbound.errors import DataError, TooFewError
from lowerbound.lab.evaluation.result import Result, jackknife, mean_result

NEIGHBOURS = 5  # as Naeem et al. 2020
GROUPS = 10  # of rows, for standard errors
BLOCK = 1000  # rows of each estimate of the kernel distance, at most
CHUNK = 2e7  # distances at a time
REACHED = 0.99  # share of reconstructions within the distance beyond which a sample lies in a hole
FEWEST = 50  # rows of each kind for which these numbers mean anything


def quality_results(real: Tensor, made: Tensor, name: str, seed: int = 0) -> tuple[dict[str, Result], dict[str, str]]:
    """All distances, and what cannot be had and why; each number carries the name of the extractor.

    Raises:
        DataError: features that are no numbers, or unequal rows.
        TooFewError: fewer than 50 rows of each kind.
    """
    results: dict[str, Result] = {}
    refused: dict[str, str] = {}
    try:
        results[f"frechet_distance_{name}"] = frechet_distance(real, made)
    except TooFewError as error:
        refused[f"frechet_distance_{name}"] = str(error)
    results[f"kernel_distance_{name}"] = kernel_distance(real, made)
    results |= {f"{key}_{name}": result for key, result in neighbourhoods(real, made).items()}
    results |= {f"{key}_{name}": result for key, result in two_sample_test(real, made, seed).items()}
    return results, refused


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
    count = _equal(real, made)
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
    count = _equal(real, made)
    blocks = max(GROUPS, math.ceil(count / BLOCK))
    pairs = zip(real.tensor_split(blocks), made.tensor_split(blocks), strict=True)
    found = torch.tensor([_discrepancy(one.double(), other.double()) for one, other in pairs], dtype=torch.float64)
    return Result(float(found.mean()), "estimate", count, float(found.std() / math.sqrt(blocks)))


def neighbourhoods(real: Tensor, made: Tensor) -> dict[str, Result]:
    """Precision and recall (Kynkäänniemi et al. 2019, eq. 1-2), density and coverage (Naeem et al. 2020, eq. 4-5).

    A row's neighbourhood reaches to its fifth nearest neighbour among its own kind. Precision: made rows in some
    neighbourhood of a real one. Recall: the reverse. Density: in how many, over five. Coverage: real rows whose
    neighbourhood holds a made one.
    """
    _equal(real, made)
    centre = real.mean(dim=0)  # distances are more precise about it
    of_real, of_made = _radii(real, centre), _radii(made, centre)
    inside, covered, recalled = [], torch.zeros(len(real), dtype=torch.bool), torch.zeros(len(real), dtype=torch.bool)
    for part, radius in zip(made.split(_rows(real)), of_made.split(_rows(real)), strict=True):
        distances = _distances(part, real, centre)
        within = distances <= of_real
        inside.append(within.sum(dim=1))
        covered |= within.any(dim=0)
        recalled |= (distances <= radius[:, None]).any(dim=0)
    counts = torch.cat(inside).double()
    return {
        "precision": mean_result((counts > 0).double(), "estimate"),
        "recall": mean_result(recalled.double(), "estimate"),
        "density": mean_result(counts / NEIGHBOURS, "estimate"),
        "coverage": mean_result(covered.double(), "estimate"),
    }


def two_sample_test(real: Tensor, made: Tensor, seed: int = 0) -> dict[str, Result]:
    """Accuracy of a classifier of real against made on rows that it was not trained on (Lopez-Paz & Oquab 2017, eq. 2).

    Half of the rows train a random forest, the other half are asked. If both kinds have one distribution, each answer
    is a fair coin, so the p-value is exact: the binomial tail.
    """
    count = _equal(real, made)
    chance = np.random.default_rng(seed)
    order = [chance.permutation(count) for _ in range(2)]
    half = count // 2
    rows = [features.numpy()[index] for features, index in zip((real, made), order, strict=True)]
    known, asked = (np.concatenate([kind[part] for kind in rows]) for part in (slice(half), slice(half, 2 * half)))
    truth = np.repeat([0, 1], half)
    forest = RandomForestClassifier(100, random_state=seed).fit(known, truth)
    right = torch.from_numpy(forest.predict(asked) == truth).double()
    chance_of_more = float(binom.sf(int(right.sum()) - 1, len(right), 0.5))
    return {
        "two_sample_accuracy": mean_result(right, "estimate"),
        "two_sample_p_value": Result(chance_of_more, "exact", len(right)),
    }


def sample_holes(known: Tensor, made: Tensor, samples: Tensor) -> Result:
    """Share of decoded prior samples that are farther from all training rows than 99 % of reconstructions are.

    0.01 is ideal; a prior that puts codes where the decoder has seen none has a large share.

    Args:
        known: training rows, (M, D).
        made: reconstructions of held-out rows, (N, D).
        samples: decoded prior samples, (S, D).
    """
    centre = known.mean(dim=0)
    near, far = (
        torch.cat([_distances(part, known, centre).min(dim=1).values for part in rows.split(_rows(known))])
        for rows in (made, samples)
    )
    return mean_result((far > torch.quantile(near, REACHED)).double(), "estimate")


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


def _radii(features: Tensor, centre: Tensor) -> Tensor:
    """The distance of each row to its fifth nearest neighbour, (N,)."""
    parts = features.split(_rows(features))
    return torch.cat([_distances(part, features, centre).kthvalue(NEIGHBOURS + 1, dim=1).values for part in parts])


def _distances(part: Tensor, others: Tensor, centre: Tensor) -> Tensor:
    """Of each row of a part to each of the others, which are not copied as a whole."""
    moved = part - centre
    return torch.cat([torch.cdist(moved, block - centre) for block in others.split(BLOCK)], dim=1)


def _rows(others: Tensor) -> int:
    """Rows at a time."""
    return max(1, int(CHUNK / len(others)))


def _equal(real: Tensor, made: Tensor) -> int:
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

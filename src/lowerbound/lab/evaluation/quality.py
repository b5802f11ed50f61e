"""Whether made rows are distributed as real ones: distances of two sets of features, equally many of each.

All take features (N, D) of real and of made rows.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.special import bdtrc
from sklearn.ensemble import RandomForestClassifier
from torch import Tensor

from lowerbound.errors import TooFewError
from lowerbound.lab.evaluation.distances import BLOCK, equal_rows, frechet_distance, kernel_distance
from lowerbound.lab.evaluation.result import Result, mean_result

NEIGHBOURS = 5  # as Naeem et al. 2020
CHUNK = 2e7  # distances at a time
REACHED = 0.99  # share of reconstructions within the distance beyond which a sample lies in a hole


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


def neighbourhoods(real: Tensor, made: Tensor) -> dict[str, Result]:
    """Precision and recall (Kynkäänniemi et al. 2019, eq. 1-2), density and coverage (Naeem et al. 2020, eq. 4-5).

    A row's neighbourhood reaches to its fifth nearest neighbour among its own kind. Precision: made rows in some
    neighbourhood of a real one. Recall: the reverse. Density: in how many, over five. Coverage: real rows whose
    neighbourhood holds a made one.
    """
    equal_rows(real, made)
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
    count = equal_rows(real, made)
    chance = np.random.default_rng(seed)
    order = [chance.permutation(count) for _ in range(2)]
    half = count // 2
    rows = [features.numpy()[index] for features, index in zip((real, made), order, strict=True)]
    known, asked = (np.concatenate([kind[part] for kind in rows]) for part in (slice(half), slice(half, 2 * half)))
    truth = np.repeat([0, 1], half)
    forest = RandomForestClassifier(100, random_state=seed).fit(known, truth)
    right = torch.from_numpy(forest.predict(asked) == truth).double()
    chance_of_more = float(bdtrc(int(right.sum()) - 1, len(right), 0.5))
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

"""What ordinary rows look like to a model, and anomaly scores that compare with them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from sklearn.neighbors import LocalOutlierFactor
from torch import Tensor

from lowerbound.errors import DataError
from lowerbound.lab.evaluation.anomaly import (
    Scores,
    finite,
    left_out,
    likelihood_scores,
    mahalanobis,
    posterior_means,
    precision_of,
)
from lowerbound.model.families.family import Family
from lowerbound.model.spec import Context

NEIGHBOURS = 20  # scikit-learn's default for the local outlier factor


@dataclass(frozen=True)
class Ordinary:
    """What ordinary rows look like to a model: needed by scores that compare.

    Attributes:
        nll: mean of the score "nll" ("elbo" where there is none), nats.
        codes: posterior means, (N, units).
        mean, precision: of the codes, (units,) and (units, units).
        errors: the score "reconstruction" of the rows, sorted, (N,).
        distances: the score "mahalanobis" of each row by the reference of all others, sorted, (N,).
        outliers: the local outlier factor among the codes, each counted once.
    """

    nll: float
    codes: Tensor
    mean: Tensor
    precision: Tensor
    errors: Tensor
    distances: Tensor
    outliers: LocalOutlierFactor

    @staticmethod
    def of(model: Family, raw: Tensor, context: Context | None = None, samples: int = 64, seed: int = 0) -> Ordinary:
        """The reference of ordinary rows, at least two more than there are units of code.

        Raises:
            DataError: there are fewer.
        """
        scores, codes = likelihood_scores(model, raw, context, samples, seed), posterior_means(model, raw, context)
        units = codes.shape[1]
        if len(codes) <= units + 1:
            raise DataError(f"{len(codes)} ordinary rows are too few for codes of {units} units: give {units + 2}.")
        mean, precision = codes.mean(dim=0), precision_of(codes)
        distances = left_out(mahalanobis(codes, mean, precision)).sort().values
        nll, errors = scores.get("nll", scores["elbo"]), scores["reconstruction"].sort().values
        return Ordinary(float(nll.mean()), codes, mean, precision, errors, distances, _outliers(codes))


def code_scores(
    model: Family,
    raw: Tensor,
    reference: Ordinary,
    context: Context | None = None,
    samples: int = 64,
    seed: int = 0,
) -> Scores:
    """Scores that compare with ordinary rows, (N,) each.

    "norm": length of the posterior's mean. "mahalanobis": its squared Mahalanobis distance from the codes of ordinary
    rows. "outlier_factor": its local outlier factor among them (Breunig et al. 2000). "typicality": how far the nll is
    from that of ordinary rows, to either side (Nalisnick et al. 2019, eq. 5, for one row). "hallucination": the share
    of ordinary rows with a nearer code less the share of them with a smaller error: near 1 where a strange code
    explains a row well.
    """
    likelihood = likelihood_scores(model, raw, context, samples, seed)
    codes = posterior_means(model, raw, context)
    distance = mahalanobis(codes, reference.mean, reference.precision)
    nearer = _share_below(reference.distances, distance)
    smaller = _share_below(reference.errors, likelihood["reconstruction"])
    factor = torch.from_numpy(-reference.outliers.score_samples(codes.numpy()))
    return {
        "norm": codes.norm(dim=1),
        "mahalanobis": distance,
        "outlier_factor": finite(factor, "outlier_factor"),
        "typicality": (likelihood.get("nll", likelihood["elbo"]) - reference.nll).abs(),
        "hallucination": nearer - smaller,
    }


def _outliers(codes: Tensor) -> LocalOutlierFactor:
    """The local outlier factor among codes, each counted once: a neighbourhood of equal codes has no density."""
    every = codes.numpy()
    distinct = np.unique(every, axis=0)
    known = distinct if len(distinct) > 1 else every
    return LocalOutlierFactor(n_neighbors=min(NEIGHBOURS, len(known) - 1), novelty=True).fit(known)


def _share_below(ordered: Tensor, values: Tensor) -> Tensor:
    """The share of sorted numbers below each value."""
    return torch.searchsorted(ordered, values.to(ordered.dtype)) / len(ordered)

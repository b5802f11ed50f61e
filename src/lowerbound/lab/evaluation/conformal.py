"""Conformal p-values: a score becomes a probability that holds without assumptions about the model."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lowerbound.errors import DataError, UsageError


def conformal_p_values(calibration: Tensor, scores: Tensor) -> Tensor:
    """p = (1 + #{calibration >= score}) / (n + 1), (N,) (Vovk et al. 2005; Bates et al. 2023, eq. 3).

    Where calibration rows and an ordinary new row are exchangeable (drawn alike, none of them used to train or to
    choose the score), P(p <= alpha) <= alpha for every alpha, on average over calibration sets. It says nothing about
    rows from a distribution that has drifted, and many p-values of one calibration set are dependent.

    Args:
        calibration: scores of ordinary rows that the model was not trained on, (n,); larger is stranger.
        scores: of the rows to judge, (N,).

    Raises:
        DataError: a score is not a number, or there is no calibration row.
    """
    if not len(calibration):
        raise DataError("conformal p-values need calibration rows, and there are none.")
    if bool(calibration.isnan().any()) or bool(scores.isnan().any()):
        raise DataError("a score is not a number; a p-value of it would mean nothing.")
    ordered = calibration.double().sort().values
    at_least = len(ordered) - torch.searchsorted(ordered, scores.double())
    return (1 + at_least) / (len(ordered) + 1)


def conformal_threshold(calibration: Tensor, alpha: float) -> float:
    """The score above which p <= alpha.

    Raises:
        UsageError: alpha is below 1 / (n + 1), the smallest p-value that n calibration rows can give.
        DataError: as for the p-values.
    """
    n = len(calibration)
    if not 0 < alpha < 1:
        raise UsageError(f"alpha is {alpha}; it must be between 0 and 1.")
    if n + 1 < 1 / alpha:
        needed = math.ceil(1 / alpha) - 1
        raise UsageError(f"{n} calibration rows give no p-value below {1 / (n + 1):.3g}: alpha {alpha} needs {needed}.")
    conformal_p_values(calibration, calibration[:1])
    allowed = int(alpha * (n + 1) + 1e-9) - 1  # calibration scores that may be at least as large
    return float(calibration.double().sort(descending=True).values[allowed])

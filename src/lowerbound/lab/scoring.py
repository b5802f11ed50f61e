"""Anomaly scores of rows by a trained run, with p-values against its own held-out rows."""

from __future__ import annotations

from pathlib import Path

import torch

from lowerbound.errors import NotSupportedError
from lowerbound.lab.data.load import load_data
from lowerbound.lab.data.rows import Batch
from lowerbound.lab.evaluation.anomaly import Scores, likelihood_scores
from lowerbound.lab.evaluation.conformal import conformal_p_values
from lowerbound.lab.evaluation.ordinary import Ordinary, code_scores
from lowerbound.lab.run import Run
from lowerbound.model.families.family import Family

REFERENCE_ROWS = 2000  # training rows that codes are compared with
CALIBRATION_ROWS = 2000  # validation rows that p-values are counted among


def score_rows(run: Run, model: Family, batch: Batch, samples: int = 64, data_dir: Path | None = None) -> Scores:
    """Scores of raw rows, (N,) each, larger is stranger, and "p_value" of the nll ("elbo" where there is none).

    Codes are compared with those of training rows, and p-values are conformal among the validation rows of the run's
    own data: of ordinary rows, a share of at most alpha has a p-value of at most alpha.

    Args:
        run: the model's, which knows its data.
        model: in evaluation mode.
        batch: the rows, with their context.
        samples: draws of the posterior of each row.
        data_dir: where the run's own data lie.

    Raises:
        NotABoundError: the model has no bound to score by.
        DataError: a value or a score is not a number.
    """
    scores = likelihood_scores(model, batch.raw, batch.context, samples)
    data = load_data(run.recipe().data, data_dir, run.quarantine_path)
    known = data.train.take(torch.arange(min(REFERENCE_ROWS, len(data.train))))
    try:
        reference = Ordinary.of(model, known.raw, known.context, samples)
        scores |= code_scores(model, batch.raw, reference, batch.context, samples)
    except NotSupportedError:
        pass  # discrete codes have likelihood scores only
    held = data.validation.take(torch.arange(min(CALIBRATION_ROWS, len(data.validation))))
    name = "nll" if "nll" in scores else "elbo"
    calibration = likelihood_scores(model, held.raw, held.context, samples)[name]
    return {**scores, "p_value": conformal_p_values(calibration, scores[name])}

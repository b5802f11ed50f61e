"""Symptoms of samples that need no reconstructions: of any model that can be drawn from."""

from __future__ import annotations

import torch

from lowerbound.errors import NotSupportedError
from lowerbound.lab.doctor.patient import Diagnosis, Patient
from lowerbound.lab.evaluation.modes import PLACES, lost_rows

LOST = 0.1  # share of the rows that may lie where no samples are


def mode_collapse(patient: Patient) -> Diagnosis | None:
    """Samples leave out places where rows are; modes need not be known."""
    real, known, samples = patient.real, patient.known, patient.draws
    if not bool(torch.isfinite(known).all()):
        raise NotSupportedError("values of training rows are missing.")
    lost = lost_rows(known, real, samples)
    share = float(lost.double().mean())
    if share < LOST:
        return None
    missed = real[lost][:8]
    return Diagnosis(
        "mode collapse",
        f"{share:.0%} of held-out rows lie in places (of {PLACES}) where samples are less than a fifth as frequent as "
        f"rows, judged by {len(samples):,} samples. Less than {LOST:.0%} is healthy.",
        [
            "of an adversarial model: the generator runs from mode to mode, and the critic forgets those it left",
            "the critic is too weak, too slow or too steep to show the generator where rows are missed",
            "of others: the decoder ignores the code, or the prior covers a small part of where codes are",
            "rows of these kinds are too few in training",
        ],
        [
            """--set 'objective.game={kind="wasserstein"}' --set 'objective.penalty={kind="gradient"}' """
            "--set objective.turns=5",
            """hold the slope of the critic as it is: --set 'objective.penalty={kind="real-gradient"}'""",
            "a critic that is faster than the generator: --set 'training.learning_rates={critic=1e-3}' "
            "--set 'training.betas=[0.0, 0.9]'",
            """a critic that compares the rows of its batch: --set 'objective.critic={kind="minibatch"}'""",
        ],
        {"rows that samples leave out": missed, "samples": samples[: len(missed)]},
    )

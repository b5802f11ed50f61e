"""Symptoms of the code."""

from __future__ import annotations

import math

import torch

from lowerbound.errors import NotSupportedError
from lowerbound.lab.doctor.advice import FREE_BITS, LEARN_NOISE, LEARN_PRIOR
from lowerbound.lab.doctor.patient import Diagnosis, Patient
from lowerbound.lab.evaluation.latents import DEAD
from lowerbound.lab.evaluation.quality import sample_holes
from lowerbound.model.distributions import tree
from lowerbound.noise import BatchNoise

SILENT = 0.1  # nats: a group that says less about its row than this says nothing
LINEAR_SHARE = 0.6  # of what principal components explain, below which a code says too little
WASTE, WASTE_SHARE = 3.0, 0.25  # nats, and share of the rate, that the aggregate may be from the prior
HOLES = 0.6  # share of decoded prior samples in holes; 0.01 is ideal, and 0.2-0.45 usual
DRIFT = 1.0  # distance of a unit's mean from the prior's, in deviations of the prior
PRIOR_DRAWS = 2000  # to find its mean and deviation
USED = 0.5  # share of the codes that rows could use


def collapse(patient: Patient) -> Diagnosis | None:
    """A group of latents whose units are all dead; units that a healthy model does not need are no symptom."""
    groups = patient.of_groups("rate_per_unit_nats")
    spread = patient.of_groups("active_units")
    for name, rates in groups.items():
        total, dead = sum(rates), sum(rate < DEAD for rate in rates)
        if total > SILENT and dead < len(rates):
            continue
        return Diagnosis(
            "posterior collapse",
            f"The {len(rates)} units of `{name}` carry {total:.2g} nats in all: {dead} are dead (below {DEAD} nats), "
            f"and the means of {spread.get(name, 0):.0f} vary over rows. A healthy unit carries 0.5 to 2 nats, and a "
            f"code that tells {patient.case.count:,} rows apart {math.log(max(2, patient.case.count)):.1f} in all.",
            [
                "the weight of the rate was at its full size before the decoder learned to use the code",
                "the decoder can do without the code (autoregressive, or very wide)",
                "the weight of the rate is too large for these data",
            ],
            [
                "warm up: --set 'objective.beta={kind=\"linear\", start=0, end=1, steps=5000}'",
                FREE_BITS,
                "a weaker decoder, word or context dropout, or a smaller beta",
            ],
        )
    return None


def rate_absent(patient: Patient) -> Diagnosis | None:
    """The rate has no weight in the loss, although codes have one."""
    rows = [row for row in patient.journal if "beta" in row and "rate_nats" in row]
    late = rows[-max(1, len(rows) // 5) :]
    if not late or any(row["beta"] != 0 for row in late) or late[-1]["rate_nats"] < SILENT:
        return None
    return Diagnosis(
        "rate absent from the loss",
        f"The weight of the rate is 0 over the last {len(late)} rows of the journal, and the rate has grown to "
        f"{late[-1]['rate_nats']:.1f} nats. A weight of 1 at the end is healthy: the loss is then minus the ELBO.",
        ["the objective's beta is 0, or its schedule ends at 0", "a plain autoencoder was wanted"],
        [
            "--set objective.beta=1, or a schedule that ends at 1",
            "for a plain autoencoder use the recipe digits-autoencoder as a pattern, and do not sample from it",
        ],
    )


def rate_too_low(patient: Patient) -> Diagnosis | None:
    """The code says less than a linear code of the same size, and is not collapsed."""
    if collapse(patient) is not None:
        return None
    own, linear = patient.explained, patient.explained_linearly
    if own >= LINEAR_SHARE * linear or linear < 0.1:
        return None
    rate = sum(map(sum, patient.of_groups("rate_per_unit_nats").values()))
    return Diagnosis(
        "rate too low for the data",
        f"Reconstructions explain {own:.0%} of the variance of held-out rows, at a rate of {rate:.1f} nats; as many "
        f"principal components explain {linear:.0%}. A healthy code explains at least {LINEAR_SHARE:.0%} of that.",
        [
            "the rate weighs too much: a large beta, or a squared error that is averaged over values, not summed",
            "the likelihood's noise (sigma) is fixed and too large for the scale of the data",
            "training was too short, or the learning rate wrong",
        ],
        [
            "--set objective.beta=1, or lower",
            LEARN_NOISE,
            "lowerbound sweep RECIPE --over objective.beta=0.1,0.3,1,3",
        ],
        patient.first(),
    )


def rate_too_high(patient: Patient) -> Diagnosis | None:
    """Much of the rate is distance of all codes from the prior: waste.

    Judged by the moments of each unit alone: a smaller number than the whole distance, but one that does not depend on
    how many rows there are.
    """
    for name, rates in patient.of_groups("rate_per_unit_nats").items():
        means, variances = (
            torch.tensor(patient.of_groups(f"aggregate_{moment}_per_unit")[name]) for moment in ("mean", "variance")
        )
        centre, scale = _prior_moments(patient, name)
        stretch, off = variances / scale.square(), (means - centre) / scale
        waste = float(0.5 * (stretch + off.square() - 1 - stretch.clamp(min=1e-12).log()).sum())
        rate = sum(rates)
        if waste < WASTE or waste < WASTE_SHARE * rate:
            continue
        return Diagnosis(
            "rate too high for the data",
            f"By the moments of their units, codes of all rows are {waste:.1f} nats from the prior of `{name}`, of a "
            f"rate of {rate:.1f}; the widest unit has {float(stretch.max()):.3g} times the prior's variance. Of a "
            f"healthy code less than {WASTE_SHARE:.0%} of the rate is such waste, or less than {WASTE:.0f} nats.",
            [
                "the rate weighs too little (beta well below 1), so codes spread as they like",
                "the prior cannot take the shape of the codes",
            ],
            [
                "--set objective.beta=1",
                LEARN_PRIOR,
                "a second stage over the codes (see Stack)",
            ],
        )
    return None


def prior_holes(patient: Patient) -> Diagnosis | None:
    """The prior puts codes where the decoder has seen none."""
    patient.case.needs_other_rows()
    rows = (patient.known, patient.made, patient.samples)
    share = sample_holes(*(each.flatten(1) for each in rows)).value
    assert isinstance(share, float)
    if share < HOLES:
        return None
    return Diagnosis(
        "prior holes",
        f"{share:.0%} of decoded prior samples are farther from all training rows than 99 % of reconstructions are. "
        f"1 % is ideal, 20 to 45 % usual, and below {HOLES:.0%} healthy.",
        [
            "the rate weighs too little, so that codes do not fill the prior",
            "the prior has a simpler shape than the codes (clusters)",
        ],
        ["--set objective.beta=1, or higher", LEARN_PRIOR, "samples from a second stage over the codes"],
        {"data": patient.real[:8], "prior samples": patient.samples[:8]},
    )


def mean_drift(patient: Patient) -> Diagnosis | None:
    """The mean of all codes has left that of the prior."""
    for name, means in patient.of_groups("aggregate_mean_per_unit").items():
        centre, scale = _prior_moments(patient, name)
        off = (torch.tensor(means) - centre).abs() / scale
        worst = int(off.argmax())
        if float(off[worst]) < DRIFT:
            continue
        return Diagnosis(
            "latent mean drifting",
            f"The codes of unit {worst} of `{name}` have mean {means[worst]:.2f}; the prior's is "
            f"{float(centre[worst]):.2f} with deviation {float(scale[worst]):.2f}. Below {DRIFT:.0f} deviation is "
            "healthy.",
            [
                "the rate weighs too little to hold codes in place",
                "the data have shifted since training, if these rows are new",
                "a bias of the encoder's last layer ran away early in training",
            ],
            [
                "--set objective.beta=1",
                "lowerbound evaluate RUN --split train: if the codes of training rows are centred, the data moved",
                "a smaller learning rate, or a warm-up of it (training.warmup_steps)",
            ],
        )
    return None


def codebook(patient: Patient) -> Diagnosis | None:
    """Most entries of a codebook are not used."""
    for name, usage in patient.of_groups("codebook_usage").items():
        size = patient.of_groups("codebook_size")[name]
        draws = patient.case.groups[name].draws
        share = min(1.0, draws.numel() / (5 * size))  # few rows cannot use many codes
        if usage >= USED * share:
            continue
        return Diagnosis(
            "codebook dying",
            f"{usage:.0%} of the {size:.0f} codes of `{name}` are used by {len(draws):,} rows, evenly as "
            f"{patient.of_groups('codebook_perplexity')[name]:.0f} would be. At least {USED * share:.0%} is healthy.",
            [
                "codes that were never near an encoder's output get no updates",
                "the codebook is larger than the data need",
                "the encoder's outputs shrank faster than the codebook could follow",
            ],
            [
                "start the codebook at data (k-means) and restart dead codes",
                "a smaller codebook: --set model.quantizer.size=128",
                "a larger commitment: --set objective.penalties.commitment=1",
            ],
        )
    return None


def _prior_moments(patient: Patient, name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and deviation of each unit under the prior, from draws: any prior has them."""
    p = patient.case.groups[name].prior()
    if not tree.has_density(p):
        raise NotSupportedError("nothing is known of the prior.")
    draws = tree.draw(p, BatchNoise(0, 0, PRIOR_DRAWS))[0].flatten(0, 1).flatten(1)
    return draws.mean(dim=0).cpu(), draws.std(dim=0).cpu()

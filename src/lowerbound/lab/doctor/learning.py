"""Symptoms of training and of the data."""

from __future__ import annotations

import math
from statistics import median

import torch
from torch import Tensor

from lowerbound.errors import NotSupportedError
from lowerbound.lab.doctor.advice import LEARN_SCALE, SHARE_NOISE
from lowerbound.lab.doctor.patient import Diagnosis, Patient
from lowerbound.lab.foreign import Foreign
from lowerbound.noise import BatchNoise

GAP, GAP_ERRORS = 1.0, 5.0  # of the bound between training and held-out rows: deviations of a row's, standard errors
SCALES = (0.02, 50.0)  # standard deviation of what an encoder sees
SLOPE = (0.5, 2.0)  # of reconstructions on rows
POOR = 0.1  # share of the variance explained, below which reconstructions are poor
ONE_SIDED = 100.0  # times that one player's gradient is the other's
SILENT = 1e-8  # the encoder's gradient over the decoder's
BATCH = 64


def overfitting(patient: Patient) -> Diagnosis | None:
    """Training rows have a much better bound than held-out ones."""
    known, held = patient.elbos("train"), patient.elbos()
    gap = float(known.mean() - held.mean())
    deviation = float(known.std())
    error = math.hypot(float(known.std()) / len(known) ** 0.5, float(held.std()) / len(held) ** 0.5)
    if gap < GAP * deviation or gap < GAP_ERRORS * error:
        return None
    return Diagnosis(
        "overfitting",
        f"The ELBO is {float(known.mean()):.1f} nats on training rows and {float(held.mean()):.1f} on held-out ones: a "
        f"gap of {gap:.1f} +- {error:.1f}. Less than the deviation from row to row, {deviation:.1f}, is healthy.",
        [
            "too few rows for so many weights, or too many epochs",
            "the decoder or its learned noise remembers single rows",
            "held-out rows come from elsewhere than training rows",
        ],
        [
            "stop early: --set training.validate_every=100 --set training.patience=5",
            "dropout in both networks: --set model.encoder.dropout=0.1 --set model.decoder.dropout=0.1",
            "smaller networks, more data, or `lowerbound data RECIPE` to look for a bad split",
        ],
    )


def wrong_scale(patient: Patient) -> Diagnosis | None:
    """What the encoder sees is far too large or small, or reconstructions are on another scale than rows."""
    rows = patient.real.flatten(1)
    x = patient.model.preparation.inputs(patient.model.preparation.prepare(patient.case.shown[0], None))
    spread = float(x.double().std()) if x.is_floating_point() else 1.0
    slope = float(_slope(rows, patient.made.flatten(1)))
    wild = not isinstance(patient.model, Foreign) and not SCALES[0] <= spread <= SCALES[1]
    likeness = float(_correlation(rows, patient.made.flatten(1)))
    off = likeness > 0.7 and not SLOPE[0] <= slope <= SLOPE[1]
    known = patient.known
    shift = float((rows.mean() - known.mean()).abs() / known.std().clamp(min=1e-12))
    stretch = float(rows.std() / known.std().clamp(min=1e-12))
    moved = shift > 1 or not 0.5 < stretch < 2
    if not (wild or off or moved):
        return None
    told = [
        f"What the encoder sees has a standard deviation of {spread:.3g} ({SCALES[0]} to {SCALES[1]:.0f} is healthy).",
        f"Reconstructions are {slope:.2g} times as strong as rows ({SLOPE[0]} to {SLOPE[1]} is healthy).",
        f"Held-out rows have {stretch:.2g} times the deviation of training rows, and their mean is {shift:.2g} off.",
    ]
    return Diagnosis(
        "wrong scaling of inputs",
        " ".join(sentence for sentence, found in zip(told, (wild, off, moved), strict=True) if found),
        [
            "rows are scaled twice or not at all (0-255 against 0-1)",
            "these rows were prepared otherwise than those of training",
            "the pair of networks expects another range",
        ],
        [
            LEARN_SCALE,
            "give integers as they are stored; the preparation of the likelihood scales them",
            "for a pair in ONNX try --scale unit and --scale symmetric",
        ],
    )


def poor_reconstructions(patient: Patient) -> Diagnosis | None:
    """The loss is better than that of a model without a code, and reconstructions are no better than the mean."""
    own = patient.explained
    if own >= POOR or patient.explained_linearly < 2 * POOR:
        return None
    found, bare = float(patient.elbos().mean()), _bare_bound(patient)
    if found <= bare:
        return None
    return Diagnosis(
        "good loss, poor reconstructions",
        f"The ELBO of {found:.1f} nats is better than the {bare:.1f} of means without a code, and yet "
        f"reconstructions explain {own:.0%} of the variance of held-out rows (a linear code of the same size "
        f"{patient.explained_linearly:.0%}). Above {POOR:.0%} is healthy.",
        [
            "the gain comes from a few values that are nearly constant, by a noise learned for each value",
            "the decoder is autoregressive and predicts values from their neighbours, not from the code",
            "the encoder's inputs are masked or dropped, or the loss is not of these rows",
        ],
        [
            SHARE_NOISE,
            "treat posterior collapse, if it was found too",
            "look at the distortion by value: lowerbound score RUN, feature_scores",
        ],
        patient.first(),
    )


def one_sided_players(patient: Patient) -> Diagnosis | None:
    """Of two players, one has all the gradient."""
    late = patient.journal[-max(1, len(patient.journal) // 5) :]
    names = sorted({key for row in late for key in row if key.startswith("gradient_norm_")})
    if len(names) < 2:
        return None
    norms = {name: median([row[name] for row in late if name in row]) for name in names}
    strong, weak = max(norms, key=lambda name: norms[name]), min(norms, key=lambda name: norms[name])
    if norms[strong] < ONE_SIDED * norms[weak]:
        return None
    of_strong, of_weak = (name.removeprefix("gradient_norm_") for name in (strong, weak))
    return Diagnosis(
        "one network dominating",
        f"Over the last {len(late)} rows of the journal the median gradient of `{of_strong}` is {norms[strong]:.3g}, "
        f"that of `{of_weak}` {norms[weak]:.3g}. Within a factor of {ONE_SIDED:.0f} is healthy.",
        [
            f"`{of_weak}` has won or given up: its loss is flat, and the other gets nothing to learn from",
            "learning rates of the two players that do not fit each other",
            "the weight of the adversarial term",
        ],
        [
            "a smaller learning rate for the player that wins: --set training.learning_rates.critic=1e-4",
            "regularise the critic (spectral norm, R1), or make it smaller",
            "start the adversarial term later, or balance it by gradients",
        ],
    )


def encoder_without_gradient(patient: Patient) -> Diagnosis | None:
    """The bound has no gradient in the encoder."""
    model, rows = patient.model, patient.case.first(BATCH, "train")
    groups = {role: [part for _, part in model.role_parameters(role)] for role in ("encoder", "decoder")}
    if not all(groups.values()):
        raise NotSupportedError("this model has no encoder and decoder to compare.")
    every = [part for parts in groups.values() for part in parts]
    asked = [part.requires_grad for part in every]
    try:
        for part in every:
            part.requires_grad_(True)
        noise = BatchNoise(patient.case.settings.seed, 0, len(rows.raw))
        x = model.preparation.prepare(rows.raw, noise.child("prepare"))
        evidence = model.evidence(x, rows.context, noise)
        loss = evidence.reconstruction().mean()  # alone: a rate has a gradient of its own
        found = torch.autograd.grad(loss, every, allow_unused=True)
    finally:
        for part, wanted in zip(every, asked, strict=True):
            part.requires_grad_(wanted)
    count = len(groups["encoder"])
    encoder, decoder = _norm(found[:count]), _norm(found[count:])
    if encoder > SILENT * decoder:
        return None
    return Diagnosis(
        "encoder without gradient",
        f"The gradient of the distortion in the encoder has norm {encoder:.2g}, in the decoder {decoder:.2g}. The "
        "encoder learns nothing from reconstructions; of a healthy model both are of about the same size.",
        [
            "the code is detached from the graph, or drawn without reparameterisation",
            "the decoder's weights on the code are 0",
            "units of the encoder are saturated or dead (ReLU)",
        ],
        [
            "draw codes by `rsample` (or straight through, where they are discrete)",
            "a smaller learning rate with a warm-up, and another seed",
            "treat posterior collapse, if it was found too",
        ],
    )


def _bare_bound(patient: Patient) -> float:
    """Mean log-likelihood of held-out x without a code, nats: the means of training rows, and one noise for all."""
    preparation = patient.model.preparation
    noise = BatchNoise(0, 0, len(patient.case.shown[0]))
    x = preparation.prepare(patient.case.shown[0], noise.child("prepare")).double().flatten(1)
    known_rows = patient.case.first(len(patient.known), "train").raw
    other = BatchNoise(1, 0, len(known_rows))
    known = preparation.prepare(known_rows, other.child("prepare")).double().flatten(1)
    mean = known.mean(dim=0)
    if bool(((x == 0) | (x == 1)).all()):
        p = mean.clamp(1e-3, 1 - 1e-3)
        return float((x * p.log() + (1 - x) * (1 - p).log()).sum(dim=1).mean())
    variance = float((known - mean).square().mean().clamp(min=1e-12))
    return float(-0.5 * ((x - mean).square() / variance + math.log(2 * math.pi * variance)).sum(dim=1).mean())


def _norm(gradients: tuple[Tensor | None, ...]) -> float:
    return math.sqrt(sum(float(found.double().square().sum()) for found in gradients if found is not None))


def _slope(rows: Tensor, made: Tensor) -> Tensor:
    """Of made on real values, by least squares about the means."""
    one, other = rows - rows.mean(), made - made.mean()
    return (one * other).sum() / one.square().sum().clamp(min=1e-300)


def _correlation(rows: Tensor, made: Tensor) -> Tensor:
    one, other = rows - rows.mean(), made - made.mean()
    return (one * other).sum() / (one.norm() * other.norm()).clamp(min=1e-300)

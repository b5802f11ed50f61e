"""Symptoms of reconstructions and samples."""

from __future__ import annotations

import torch
from torch import Tensor

from lowerbound.errors import NotSupportedError
from lowerbound.lab.doctor.advice import LEARN_NOISE, LEARN_PRIOR
from lowerbound.lab.doctor.patient import Diagnosis, Patient
from lowerbound.lab.evaluation.reconstruction import colour_bias, spectra

FINE, COARSE = 0.15, 0.5  # power kept in the finest bands, and in the coarsest, of reconstructions
ALIKE = 0.2  # distance between samples, as a share of that between rows
BIAS = 0.03  # of a channel's mean, as a share of the largest value
PERIODS = (2, 4)  # pixels, of patterns that strided layers leave
PATTERN = 0.03  # amplitude of such a pattern, as a share of the largest value
RINGING = 2.0  # power made over real in the finest band
SEAM, SEAM_LEAD = (
    0.02,
    5.0,
)  # a jump of the error from line to line: of the largest value, of the usual jump
RARE_ROWS, UNLIKE, UNLIKE_LEAD = 0.05, 0.8, 2.0  # share of rows that are rare; error of theirs that is too large
SIDE, SEAM_SIDE = 8, 16  # pixels that an image needs for a spectrum, and to be coded in tiles


def blur(patient: Patient) -> Diagnosis | None:
    """Reconstructions keep coarse structure and lose the fine."""
    real, made, _ = _spectra(patient)
    kept = made / real.clamp(min=1e-12 * float(real.sum()))
    fine, coarse = float(kept[len(kept) // 2 :].mean()), float(kept[0])
    if fine >= FINE or coarse < COARSE:
        return None
    return Diagnosis(
        "blurry reconstructions",
        f"In the finer half of spatial frequencies reconstructions keep {fine:.0%} of the power of the data, in the "
        f"coarsest band {coarse:.0%}. At least {FINE:.0%} of the fine power is healthy.",
        [
            "the code is too small or too expensive to say the details",
            "a Gaussian likelihood with a large fixed noise, or squared error: a mean of what is possible is blurred",
            "the decoder cannot make fine structure (too few layers at full size)",
        ],
        [
            "more units: --set model.latent=64, or a smaller beta",
            LEARN_NOISE,
            "a convolutional decoder, or a perceptual or adversarial term",
        ],
        patient.first(),
    )


def identical_samples(patient: Patient) -> Diagnosis | None:
    """Samples are all alike although rows are not."""
    rows, samples = patient.real[: len(patient.samples)].flatten(1), patient.samples.flatten(1)
    between, between_samples = _distance(rows), _distance(samples)
    if between == 0 or between_samples >= ALIKE * between:
        return None
    return Diagnosis(
        "identical samples",
        f"Two samples are {between_samples:.3g} apart, two held-out rows {between:.3g}: "
        f"{between_samples / between:.0%}. At least {ALIKE:.0%} is healthy.",
        [
            "the decoder ignores the code (posterior collapse)",
            "the prior covers a small part of where codes are",
            "of an adversarial model: mode collapse",
        ],
        [
            "if `posterior collapse` was found too, treat that",
            LEARN_PRIOR,
            "samples from a second stage over the codes",
        ],
        {"data": patient.real[:8], "samples": patient.samples[:8]},
    )


def colour_shift(patient: Patient) -> Diagnosis | None:
    """A channel is made brighter or darker than it is."""
    real, made = patient.images
    shift = colour_bias(real, made, patient.peak)
    bias, error = shift.mean(dim=0), shift.std(dim=0) / len(shift) ** 0.5
    worst = int(bias.abs().argmax())
    if float(bias[worst].abs()) < max(BIAS, 5 * float(error[worst])):
        return None
    return Diagnosis(
        "colour shift",
        f"Channel {worst} is made {float(bias[worst]):+.1%} of the largest value brighter than it is "
        f"(standard error {float(error[worst]):.1%}). Within {BIAS:.0%} is healthy.",
        [
            "encode and decode use other scales of the pixels ([0, 1] against [-1, 1], or rounding downwards)",
            "channels in another order (RGB against BGR), or another colour space",
            "weights in half precision that overflow or were rounded",
        ],
        [
            "compare one image before and after with `lowerbound reconstruct`, in fp32",
            "for a pair in ONNX try --scale unit and --scale symmetric",
            "train the decoder alone for a while on data of this kind",
        ],
        patient.worst(shift[:, worst].abs()) if patient.real.ndim == 4 else {},
    )


def checkerboard(patient: Patient) -> Diagnosis | None:
    """The error has a pattern of the period of strided layers, or the finest band has too much power."""
    real, made = patient.images
    error = ((made - real) / patient.peak).mean(dim=(0, 1))  # (H, W)
    found = {period: _pattern(error, period) for period in PERIODS if min(error.shape) >= 8 * period}
    period = max(found, key=lambda period: found[period], default=0)
    amplitude = found.get(period, 0.0)
    power_real, power_made, _ = _spectra(patient)
    ratio = float(power_made[-1] / power_real[-1].clamp(min=1e-12 * float(power_real.sum())))
    if amplitude < PATTERN and ratio < RINGING:
        return None
    return Diagnosis(
        "ringing or checkerboard",
        f"The mean error has a pattern with a period of {period} pixels and an amplitude of {amplitude:.1%} of the "
        f"largest value (below {PATTERN:.0%} is healthy); the finest band has {ratio:.1f} times the power of the data "
        f"(below {RINGING:.0f} is healthy).",
        [
            "transposed convolutions whose kernel is no multiple of the stride",
            "an adversarial or perceptual term that weighs too much",
            "upsampling without smoothing before a convolution",
        ],
        [
            "upsample and convolve instead, or a kernel that the stride divides",
            "a smaller weight of the adversarial term, or a later start of it",
        ],
        patient.first(),
    )


def seams(patient: Patient) -> Diagnosis | None:
    """The error jumps at a line: tiles that do not fit."""
    real, made = patient.images
    if min(real.shape[-2:]) < SEAM_SIDE:
        raise NotSupportedError(f"images with sides below {SEAM_SIDE} pixels are not coded in tiles.")
    for axis, line in ((-1, "column"), (-2, "row")):
        jumps = (_jumps(made, axis) - _jumps(real, axis)) / patient.peak
        usual = float(jumps.abs().median())
        worst = int(jumps.argmax())
        if float(jumps[worst]) < max(SEAM, SEAM_LEAD * usual):
            continue
        return Diagnosis(
            "seams",
            f"Between {line} {worst} and {worst + 1} reconstructions jump by {float(jumps[worst]):.1%} of the largest "
            f"value more than the data do; elsewhere by {usual:.1%}. Below {SEAM:.0%} is healthy.",
            [
                "the image was coded in tiles without enough overlap",
                "statistics of normalisation differ from tile to tile",
                "padding of a layer shows at its border",
            ],
            ["overlap tiles by the network's receptive field", "normalise with statistics of the whole image"],
            patient.first(),
        )
    return None


def rare_rows(patient: Patient) -> Diagnosis | None:
    """Rows that are unlike all others are reconstructed as if they were ordinary."""
    rows = patient.real.flatten(1)
    mean = patient.known.mean(dim=0).flatten()
    if len(rows) < 100:
        raise NotSupportedError("rare rows need 100 rows to be rare among.")
    alone = torch.cdist(rows, patient.known.flatten(1)).kthvalue(5, dim=1).values
    error = (patient.made.flatten(1) - rows).square().sum(dim=1) / (rows - mean).square().sum(dim=1).clamp(min=1e-12)
    count = max(5, int(RARE_ROWS * len(rows)))
    order = alone.argsort(descending=True)
    rare, common = float(error[order[:count]].median()), float(error[order[count:]].median())
    if rare < UNLIKE or rare < UNLIKE_LEAD * common:
        return None
    score = torch.zeros_like(alone)
    score[order[:count]] = error[order[:count]]
    return Diagnosis(
        "rare events not reconstructed",
        f"Of the {count} held-out rows that are farthest from any training row, {rare:.0%} of what sets them apart is "
        f"lost; of the others {common:.0%}. Below {UNLIKE:.0%} is healthy.",
        [
            "rows of this kind are too few in training to be worth any capacity",
            "the code is too small: it is spent on what is common",
            "they are anomalies, and this is what an anomaly detector should do",
        ],
        [
            "more of them in training, or a larger weight for them (a split by stratum shows how many there are)",
            "more units: --set model.latent=64",
            "score them instead: lowerbound score RUN --out scores.csv",
        ],
        patient.worst(score),
    )


def _spectra(patient: Patient) -> tuple[Tensor, Tensor, Tensor]:
    real, made = patient.images
    if min(real.shape[-2:]) < SIDE:
        raise NotSupportedError(f"images with sides below {SIDE} pixels have no fine structure to speak of.")
    return spectra(real, made)


def _pattern(error: Tensor, period: int) -> float:
    """The range of the mean error over places of one phase, (H, W), less what slow changes leave."""
    height, width = (size - size % period for size in error.shape)
    inner = error[:height, :width]
    blocks = inner.reshape(height // period, period, width // period, period)
    within = blocks - blocks.mean(dim=(1, 3), keepdim=True)
    phases = within.median(dim=2).values.median(dim=0).values
    return float(phases.max() - phases.min())


def _jumps(images: Tensor, axis: int) -> Tensor:
    """How far the mean along a line jumps to the next line, mean over images and channels."""
    return images.diff(dim=axis).mean(dim=-2 if axis == -1 else -1).abs().mean(dim=(0, 1))


def _distance(rows: Tensor) -> float:
    """Mean distance of two rows."""
    return float(torch.pdist(rows).mean()) if len(rows) > 1 else 0.0

"""How near reconstructions are to the rows that they were made of.

Functions of pairs take real and made rows of the same shape, images (N, C, H, W) or clips (N, C, T, H, W) where they
speak of pixels, and `peak`, the difference of the largest and the smallest value there can be (255 for 8-bit pixels).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from lowerbound.errors import DataError, NotSupportedError
from lowerbound.lab.evaluation.bounds import CHUNK
from lowerbound.lab.evaluation.result import Result, mean_result, number
from lowerbound.lab.generation.use import device_of
from lowerbound.model.distributions import tree
from lowerbound.model.families.family import Family
from lowerbound.model.spec import Context, DataSpec
from lowerbound.noise import BatchNoise, Noise

WINDOW, SIGMA = 11, 1.5  # of structural similarity: Wang et al. 2004, section III.B
STABILISERS = (0.01, 0.03)  # K1 and K2 there
SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # weights of the five scales: Wang et al. 2003, section 3.2
MOST_DB = 100.0  # of a pixel-perfect reconstruction, whose ratio is infinite
BANDS = 8  # of spatial frequency, from 0 to 1/2 cycle per pixel, at most
DRAWS, TAIL = 99, 5  # the 5th smallest to the 5th largest of 99 draws hold 90 % of another draw
INTERVAL_ROWS, INTERVAL_WORK = 200, 5e7  # rows, and values drawn, at most


def squared_error(real: Tensor, made: Tensor) -> Tensor:
    """Mean over the values of each row, (N,), in double precision."""
    return (made.double() - real.double()).square().flatten(1).mean(dim=1)


def psnr(real: Tensor, made: Tensor, peak: float) -> Tensor:
    """Peak signal-to-noise ratio of each row, (N,), dB; at most 100."""
    error = squared_error(real, made) / peak**2
    return (-10 * error.clamp(min=1e-300).log10()).clamp(max=MOST_DB)


def ssim(real: Tensor, made: Tensor, peak: float) -> Tensor:
    """Structural similarity of each image (Wang et al. 2004, eq. 13), (N,): Gaussian windows inside the image only.

    Raises:
        NotSupportedError: images smaller than the window.
    """
    return _similarity(real, made, peak)[0]


def ms_ssim(real: Tensor, made: Tensor, peak: float) -> Tensor:
    """Structural similarity over five scales (Wang et al. 2003, eq. 7), (N,); terms below 0 count as 0.

    Raises:
        NotSupportedError: images with a side of less than 176 pixels.
    """
    needed = WINDOW * 2 ** (len(SCALES) - 1)
    if min(real.shape[-2:]) < needed:
        raise NotSupportedError(f"similarity over five scales needs images with sides of {needed} pixels at least.")
    product = torch.ones(len(real), dtype=torch.float64, device=real.device)
    for place, weight in enumerate(SCALES):
        whole, contrast = _similarity(real, made, peak)
        product *= (whole if place == len(SCALES) - 1 else contrast).clamp(min=0) ** weight
        real, made = (functional.avg_pool2d(images.double(), 2) for images in (real, made))
    return product


def colour_bias(real: Tensor, made: Tensor, peak: float) -> Tensor:
    """How much brighter each channel was made, (N, C), as a share of the peak."""
    return (made.double() - real.double()).flatten(2).mean(dim=2) / peak


def spectra(real: Tensor, made: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Energy by spatial frequency of the real images, the made ones and the error, (bands,) each.

    Of 8 bands (side / 2 for sides below 16), band b is of radial frequencies from b / 16 to (b + 1) / 16 cycles per
    pixel; the last one takes the corners too. The mean of each image is left out, and a window tapers the borders off.
    """
    height, width = real.shape[-2:]
    bands = max(1, min(BANDS, min(height, width) // 2))
    taper = torch.outer(
        torch.hann_window(height, periodic=False, dtype=torch.float64),
        torch.hann_window(width, periodic=False, dtype=torch.float64),
    ).to(real.device)
    radius = torch.sqrt(torch.fft.fftfreq(height)[:, None] ** 2 + torch.fft.fftfreq(width) ** 2)
    band = (radius * 2 * bands).long().clamp(max=bands - 1).flatten().to(real.device)

    def energy(images: Tensor) -> Tensor:
        images = images.double().reshape(-1, height, width)
        images = images - images.mean(dim=(1, 2), keepdim=True)
        power = torch.fft.fft2(images * taper).abs().square().sum(dim=0).flatten()
        return torch.zeros(bands, dtype=torch.float64, device=real.device).index_add_(0, band, power)

    return energy(real), energy(made), energy(made.double() - real.double())


def flicker(real: Tensor, made: Tensor, peak: float) -> Tensor:
    """How much the error of a clip (C, T, H, W) changes from frame to frame, (N,): mean |e_t+1 - e_t| over the peak."""
    error = (made.double() - real.double()) / peak
    return error.diff(dim=-3).abs().flatten(1).mean(dim=1)


@torch.no_grad()
def intervals(model: Family, raw: Tensor, context: Context | None, noise: Noise) -> tuple[Tensor, Tensor]:
    """Predictive 90 % intervals of each value: draws of z from q(z|x), then of x from p(x|z).

    Args:
        model: in evaluation mode.
        raw: rows, (N, *event).
        context: of the rows, for a conditional model.
        noise: of as many rows.

    Returns:
        Whether each value lies in its interval, and the width of the interval, (N, *event) each; NaN where missing.

    Raises:
        NotSupportedError: the values are few and discrete, so that an interval says nothing, or there is no p(x|z).
    """
    if (model.data.levels or 256) < 16 or model.data.columns or model.data.vocabulary:
        raise NotSupportedError("intervals are of real numbers or many levels; these data are discrete.")
    if model.data.geometry != "grid":
        raise NotSupportedError("intervals are of values with a place in the row; these points have no order.")
    known = None if context is None else context.to(device_of(model))
    x = model.preparation.prepare(raw.to(device_of(model)), None)
    drawn = []
    for place in range(DRAWS):
        own = noise.child(f"draw{place}")
        px = model.decode(model.encode(x, known, own.child("q")), known)
        if not tree.has_density(px):
            raise NotSupportedError("an implicit model has no p(x|z), so its intervals would leave out its noise.")
        drawn.append(model.preparation.restore(tree.draw(px, own.child("px"))[0][0]).cpu())
    ordered = torch.stack(drawn).float().sort(dim=0).values
    low, high = ordered[TAIL - 1], ordered[DRAWS - TAIL]
    return ((raw >= low) & (raw <= high)).double(), (high - low).double()


def reconstruction_results(real: Tensor, made: Tensor, spec: DataSpec) -> tuple[dict[str, Result], dict[str, str]]:
    """All that these rows can be compared by, and what cannot be had and why.

    Args:
        real: raw rows, (N, *event).
        made: what the model makes of them.
        spec: what kind of data they are.
    """
    if not bool(torch.isfinite(made[torch.isfinite(real)]).all()):
        raise DataError("a reconstruction holds NaN or an infinity: the model is broken.")
    if spec.vocabulary:
        right = (real == made).double()
        used = (real != 0).double()  # the padding does not count
        return {"token_accuracy": mean_result((right * used).sum(1) / used.sum(1).clamp(min=1), "estimate")}, {}
    if spec.columns:
        return {"error_per_column": number(_by_column(real, made, spec), "estimate", len(real))}, {}
    results = {"squared_error": mean_result(squared_error(real, made), "estimate")}
    if len(spec.event) not in (3, 4):
        return results, {}
    refused = {}
    peak = float(spec.levels - 1) if spec.levels else 1.0
    results["psnr_db"] = mean_result(psnr(real, made, peak), "estimate")
    bias = colour_bias(real, made, peak)
    results["colour_bias_per_channel"] = number(bias.mean(dim=0), "estimate", len(real))
    of_real, of_made, of_error = spectra(real, made)
    if bool((of_real > 0).all()):
        results["error_by_frequency"] = number(of_error / of_real, "estimate", len(real))
        results["power_by_frequency"] = number(of_made / of_real, "estimate", len(real))
    else:
        refused["error_by_frequency"] = "the images have no energy at some spatial frequencies, to compare with."
    if len(spec.event) == 4 and spec.event[1] > 1:
        results["flicker"] = mean_result(flicker(real, made, peak), "estimate")
    if len(spec.event) == 4:
        real, made = (clips.movedim(2, 1).flatten(0, 1) for clips in (real, made))
    for name, measure in (("ssim", ssim), ("ms_ssim", ms_ssim)):
        try:
            results[name] = mean_result(measure(real, made, peak), "estimate")
        except NotSupportedError as error:
            refused[name] = str(error)
    return results, refused


def interval_results(model: Family, raw: Tensor, context: Context | None = None, seed: int = 0) -> dict[str, Result]:
    """Coverage and mean width of predictive 90 % intervals, on the scale of raw values."""
    rows = min(len(raw), INTERVAL_ROWS, max(2, int(INTERVAL_WORK / (DRAWS * raw[0].numel()))))
    size = max(1, 10 * CHUNK // (DRAWS * raw[0].numel()))
    covered, width = [], []
    for start in range(0, rows, size):
        part = slice(start, min(start + size, rows))
        noise = BatchNoise(seed, start, part.stop - start, device=device_of(model)).child("intervals")
        inside, wide = intervals(model, raw[part], None if context is None else context.select(part), noise)
        covered.append(inside.flatten(1).mean(dim=1))
        width.append(wide.flatten(1).mean(dim=1))
    return {
        "interval_90_coverage": mean_result(torch.cat(covered), "estimate"),
        "interval_90_width": mean_result(torch.cat(width), "estimate"),
    }


def _similarity(real: Tensor, made: Tensor, peak: float) -> tuple[Tensor, Tensor]:
    """Structural similarity and its contrast-structure part, (N,) each, mean over channels and places."""
    if min(real.shape[-2:]) < WINDOW:
        raise NotSupportedError(f"structural similarity needs images with sides of {WINDOW} pixels at least.")
    offsets = torch.arange(WINDOW, dtype=torch.float64, device=real.device) - WINDOW // 2
    bell = torch.exp(-offsets.square() / (2 * SIGMA**2))
    bell = bell / bell.sum()
    first, second = (peak * k for k in STABILISERS)

    def blurred(images: Tensor) -> Tensor:
        flat = images.reshape(-1, 1, *images.shape[-2:])
        along = functional.conv2d(functional.conv2d(flat, bell[None, None, :, None]), bell[None, None, None, :])
        return along.reshape(*images.shape[:2], *along.shape[-2:])

    one, other = real.double(), made.double()
    mean, mean_made = blurred(one), blurred(other)
    variance = blurred(one * one) - mean.square()
    variance_made = blurred(other * other) - mean_made.square()
    covariance = blurred(one * other) - mean * mean_made
    contrast = (2 * covariance + second**2) / (variance + variance_made + second**2)
    light = (2 * mean * mean_made + first**2) / (mean.square() + mean_made.square() + first**2)
    return (light * contrast).flatten(1).mean(dim=1), contrast.flatten(1).mean(dim=1)


def _by_column(real: Tensor, made: Tensor, spec: DataSpec) -> Tensor:
    """Of each column, over values that are there: root mean squared error over the column's own standard deviation for
    numbers and counts (the error itself where the column does not vary), the share of wrong values for categories; 0
    where no row has a value."""
    errors = []
    for place, column in enumerate(spec.columns):
        there = torch.isfinite(real[:, place])
        one, other = real[there, place].double(), made[there, place].double()
        if not len(one):
            errors.append(torch.zeros((), dtype=torch.float64))
            continue
        if column.kind in ("category", "binary"):
            errors.append((one != other.round()).double().mean())
        else:
            spread = float(one.std()) if len(one) > 1 else 0.0
            errors.append((one - other).square().mean().sqrt() / (spread or 1.0))
    return torch.stack(errors) if errors else torch.full((0,), math.nan)

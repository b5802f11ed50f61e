"""Metrics of reconstructions against scikit-image and torchmetrics, and against answers that are known."""

from __future__ import annotations

import math

import pytest
import torch
from linear import exact_linear_vae
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor
from torchmetrics.functional.image.ssim import _ssim_update

from lowerbound.errors import DataError, NotSupportedError
from lowerbound.lab.evaluation import reconstruction as ours
from lowerbound.lab.generation import use
from lowerbound.model.build import build_model
from lowerbound.model.spec import Column, DataSpec
from lowerbound.noise import generator

PEAK = 255.0


def pictures(height: int, width: int, channels: int = 3, rows: int = 4) -> tuple[Tensor, Tensor]:
    """Smooth pictures with 256 levels, and the same with noise and a shift."""
    source = generator(1)
    coarse = torch.rand(rows, channels, height // 4, width // 4, generator=source)
    real = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1) * PEAK
    made = (0.9 * real + 5 + 12 * torch.randn(real.shape, generator=source)).clamp(0, PEAK)
    return real.round(), made.round()


def peer_ssim(real: Tensor, made: Tensor) -> float:
    """By scikit-image, of one image (C, H, W)."""
    return structural_similarity(
        real.double().numpy(), made.double().numpy(), channel_axis=0, data_range=PEAK,
        gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
    )  # fmt: skip


@pytest.mark.parametrize("channels", [1, 3])
def test_signal_to_noise_and_similarity_equal_scikit_image(channels: int) -> None:
    real, made = pictures(40, 52, channels)
    for one, other, ratio, likeness in zip(
        real, made, ours.psnr(real, made, PEAK), ours.ssim(real, made, PEAK), strict=True
    ):
        assert ratio == pytest.approx(peak_signal_noise_ratio(one.numpy(), other.numpy(), data_range=PEAK), abs=1e-4)
        assert likeness == pytest.approx(peer_ssim(one, other), abs=1e-4)


def test_similarity_over_scales_equals_the_parts_of_peers() -> None:
    """Contrast of four scales by torchmetrics, similarity of the fifth by scikit-image: torchmetrics alone counts
    mirrored borders in the fifth scale and not in the others."""
    real, made = pictures(192, 200)
    wanted = torch.ones(4, dtype=torch.float64)
    one, other = real.double(), made.double()
    for weight in ours.SCALES[:-1]:
        settings = {"sigma": [1.5, 1.5], "kernel_size": [11, 11], "data_range": PEAK}
        wanted *= _ssim_update(other, one, **settings, return_contrast_sensitivity=True)[1].clamp(min=0) ** weight
        one, other = torch.nn.functional.avg_pool2d(one, 2), torch.nn.functional.avg_pool2d(other, 2)
    wanted *= torch.tensor([peer_ssim(*pair) for pair in zip(one, other, strict=True)]) ** ours.SCALES[-1]
    assert torch.allclose(ours.ms_ssim(real, made, PEAK), wanted, atol=1e-4)
    with pytest.raises(NotSupportedError, match="176 pixels"):
        ours.ms_ssim(*pictures(160, 192), PEAK)


def test_identical_images_have_full_marks() -> None:
    real, _ = pictures(192, 192)
    assert torch.equal(ours.psnr(real, real, PEAK), torch.full((4,), 100.0, dtype=torch.float64))
    for measure in (ours.ssim, ours.ms_ssim):
        assert torch.allclose(measure(real, real, PEAK), torch.ones(4, dtype=torch.float64))
    assert (ours.spectra(real, real)[2] == 0).all()


def test_colour_bias_is_the_shift_of_each_channel() -> None:
    real, _ = pictures(32, 32)
    shift = torch.tensor([10.0, 0.0, -5.0])
    assert torch.allclose(ours.colour_bias(real, real + shift[:, None, None], PEAK), (shift / PEAK).double(), atol=1e-9)


def test_a_wave_has_its_energy_in_its_band() -> None:
    """10 cycles over 64 pixels are 0.156 per pixel: band 2 of [0.125, 0.1875)."""
    wave = torch.sin(2 * math.pi * 10 * torch.arange(64) / 64).expand(1, 1, 64, 64)
    of_real, of_made, of_error = ours.spectra(wave, 0.5 * wave)
    assert int(of_real.argmax()) == 2
    assert of_real[2] / of_real.sum() > 0.98
    assert of_made[2] / of_real[2] == pytest.approx(0.25)
    assert of_error[2] / of_real[2] == pytest.approx(0.25)


def test_an_error_that_stays_does_not_flicker() -> None:
    clip = torch.rand(2, 1, 6, 16, 16, generator=generator(0))
    assert ours.flicker(clip, clip + 0.1, 1.0).max() < 1e-7
    alternating = 0.1 * torch.tensor([1.0, -1.0]).repeat(3)[:, None, None]
    assert torch.allclose(ours.flicker(clip, clip + alternating, 1.0), torch.full((2,), 0.2).double(), atol=1e-6)


def test_intervals_cover_what_they_say() -> None:
    """Of rows that the model makes itself, with its exact posterior; many values, so that a code hides few of them."""
    model = exact_linear_vae(100, 2, 0.5)
    raw = use.sample(model, 400, seed=3, observe="sample")
    found = ours.interval_results(model, raw)
    assert found["interval_90_coverage"].n == 200
    assert found["interval_90_coverage"].value == pytest.approx(0.90, abs=0.02)
    assert found["interval_90_width"].value == pytest.approx(2 * 1.645 * 0.5, rel=0.05)
    overconfident = ours.interval_results(model, 2 * raw)["interval_90_coverage"].value
    assert isinstance(overconfident, float)
    assert overconfident < 0.75


def test_intervals_of_binary_data_are_refused() -> None:
    table = {"kind": "vae", "latent": 2, "likelihood": {"kind": "bernoulli"}}
    model = build_model(table, DataSpec((1, 8, 8), levels=2), 0).eval()
    with pytest.raises(NotSupportedError, match="discrete"):
        ours.interval_results(model, torch.zeros(2, 1, 8, 8, dtype=torch.uint8))


def test_small_images_have_no_similarity_and_it_is_said_why() -> None:
    raw = torch.randint(0, 17, (5, 1, 8, 8), generator=generator(0))
    results, refused = ours.reconstruction_results(raw, raw, DataSpec((1, 8, 8), levels=17))
    assert results["psnr_db"].value == 100
    assert "11 pixels" in refused["ssim"]


def test_columns_are_compared_by_their_kind() -> None:
    columns = (Column("size", "real"), Column("colour", "category", 3))
    real = torch.tensor([[0.0, 0], [2, 1], [4, 2], [math.nan, 1]])
    made = torch.tensor([[1.0, 0], [3, 1], [5, 1], [7, 1]])
    found = ours.reconstruction_results(real, made, DataSpec((2,), columns=columns))[0]["error_per_column"].value
    assert found == pytest.approx([1 / 2, 1 / 4])
    real[:, 0], made[:, 1] = 3.0, 0.0
    found = ours.reconstruction_results(real, made, DataSpec((2,), columns=columns))[0]["error_per_column"].value
    assert found == pytest.approx([math.sqrt((4 + 0 + 4 + 16) / 4), 3 / 4])  # without spread: the error itself
    real[:, 0] = math.nan
    found = ours.reconstruction_results(real, made, DataSpec((2,), columns=columns))[0]["error_per_column"].value
    assert found == [0.0, 3 / 4]


def test_tokens_are_compared_one_by_one_without_the_padding() -> None:
    real, made = torch.tensor([[1, 2, 0, 0], [3, 3, 3, 3]]), torch.tensor([[1, 1, 2, 0], [3, 3, 3, 3]])
    found = ours.reconstruction_results(real, made, DataSpec((4,), 4, vocabulary=("", "a", "b", "c")))[0]
    assert found["token_accuracy"].value == pytest.approx(0.75)


def test_a_reconstruction_that_is_no_number_is_named() -> None:
    with pytest.raises(DataError, match="NaN"):
        ours.reconstruction_results(torch.zeros(2, 3), torch.full((2, 3), math.nan), DataSpec((3,)))

"""Score distillation against Gaussian mixtures, whose denoisers are known."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tables import FAMILIES, POINTS, ROWS_AS_RUNS, raw_rows
from torch import Tensor

from lowerbound.errors import NotSupportedError, RecipeError, ShapeError
from lowerbound.model.build import build_model, build_objective
from lowerbound.model.distributions.diffusing.levels import Guess, Level
from lowerbound.model.distributions.diffusing.schedules import LogLinear
from lowerbound.model.distributions.diffusion import DiffusionDensity, Process
from lowerbound.model.objectives.distillation import distillation_gradient
from lowerbound.model.spec import DataSpec
from lowerbound.noise import BatchNoise

CENTRES = torch.tensor([[2.0, 0.0], [-2.0, 0.0], [0.0, 2.0]], dtype=torch.float64)
SIGMA = 0.15


def mixture(centres: Tensor = CENTRES, sigma: float = SIGMA) -> DiffusionDensity:
    """A diffusion model of an equal mixture of Gaussians that says exactly what there is to say."""

    def denoiser(noisy: Tensor, features: Tensor | None, context: Tensor | None, level: Level) -> Guess:
        alpha, noise = level.alpha[..., None], level.sigma[..., None]
        variance = alpha.square() * sigma**2 + noise.square()
        away = noisy[:, None] - alpha * centres
        share = torch.softmax(-0.5 * (away.square() / variance).sum(2, keepdim=True), dim=1)
        eps = (share * away / variance).sum(1) * level.sigma
        return Guess((noisy - level.sigma * eps) / level.alpha, eps)

    return DiffusionDensity(None, None, denoiser, Process(torch.Size([2]), LogLinear()))


def test_the_mean_gradient_is_that_of_the_closed_form() -> None:
    """For one Gaussian N(m, s^2) it is the mean over times of sigma^3 alpha (x - m) / (alpha^2 s^2 + sigma^2)."""
    centre, sigma, count, span = torch.tensor([[1.0, -0.5]]).double(), 0.4, 200_000, (0.1, 0.8)
    x = torch.tensor([[0.3, 0.7]], dtype=torch.float64).expand(count, -1)
    found = distillation_gradient(mixture(centre, sigma), x, BatchNoise(0, 0, count, dtype=torch.float64), span)
    level = LogLinear().level(span[0] + (span[1] - span[0]) * (torch.arange(10_000).double() + 0.5) / 10_000)
    each = level.sigma**3 * level.alpha / (level.alpha**2 * sigma**2 + level.sigma**2)
    expected = each.mean() * (x[0] - centre[0])
    error = (found.mean(0) - expected).abs() / (found.std(0) / count**0.5)
    assert error.max() < 4.5


def test_particles_go_to_the_modes() -> None:
    """Gradients that vanish on average at the modes: all particles end at one, and each mode has some."""
    particles = 2 * torch.randn(90, 2, generator=torch.Generator().manual_seed(0)).double()
    for step in range(300):
        every = particles.repeat(16, 1)
        pull = distillation_gradient(
            mixture(), every, BatchNoise(0, step, len(every), dtype=torch.float64), (0.05, 0.4)
        )
        particles = particles - 6 * (1 - step / 300) * pull.unflatten(0, (16, 90)).mean(0)
    distance, nearest = torch.cdist(particles, CENTRES).min(dim=1)
    assert distance.max() < 0.05  # a draw of the mixture is at 0.19 on average: distillation seeks modes
    assert set(nearest.tolist()) == {0, 1, 2}


def test_the_frozen_model_stays_and_its_jacobian_is_left_out() -> None:
    model = FAMILIES["generator"].make()
    objective = build_objective({"kind": "score-distillation", "prior": "density-diffusion"}, model, 0, ROWS_AS_RUNS)
    noise = BatchNoise(0, 0, 6)
    evidence = model.evidence(raw_rows(POINTS), None, noise)
    made = torch.randn(6, 2, requires_grad=True)
    objective(replace(evidence, generated=made), 0, "model", noise).value.backward()
    assert not any(p.requires_grad or p.grad is not None for p in objective.parameters())
    teacher = ROWS_AS_RUNS.model("density-diffusion")
    density = teacher.density(None, None)
    expected = distillation_gradient(density, made, noise, (0.02, 0.98)) / 6
    torch.testing.assert_close(made.grad, expected)


def test_guidance_goes_on_from_what_is_said_without_the_context() -> None:
    def denoiser(noisy: Tensor, features: Tensor | None, context: Tensor | None, level: Level) -> Guess:
        assert context is not None
        said = context.expand(noisy.shape)
        return Guess(said, said)

    density = DiffusionDensity(None, torch.full((5, 1), 2.0), denoiser, Process(torch.Size([3])))
    x, noise = torch.zeros(5, 3), BatchNoise(0, 0, 5)
    plain, guided = (distillation_gradient(density, x, noise, (0.5, 0.5), scale) for scale in (1.0, 3.0))
    torch.testing.assert_close(guided - plain, torch.full((5, 3), 0.5 * (6.0 - 2.0)))


def test_what_cannot_be_distilled_is_refused() -> None:
    model = FAMILIES["generator"].make()

    def refused(kind: type[Exception], match: str, **settings: object) -> None:
        with pytest.raises(kind, match=match):
            build_objective({"kind": "score-distillation", **settings}, model, 0, ROWS_AS_RUNS)

    refused(NotSupportedError, "no diffusion model", prior="vae-pixel-gaussian")
    refused(RecipeError, "below the last", prior="density-diffusion", first=0.5, last=0.2)
    other = build_model({"kind": "generator", "network": {"kind": "mlp", "widths": [4]}}, DataSpec((3,)), 0)
    with pytest.raises(ShapeError, match="such rows"):
        build_objective({"kind": "score-distillation", "prior": "density-diffusion"}, other, 0, ROWS_AS_RUNS)

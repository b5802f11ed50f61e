"""A diffusion decoder against a Gaussian one: with the denoiser of a Gaussian all its numbers are known."""

from __future__ import annotations

import math

import pytest
import torch
from tables import FAMILIES, LABELLED, context_rows, raw_rows
from torch import Tensor
from torch.distributions import Normal

from lowerbound.errors import NotABoundError
from lowerbound.model.build import build_model
from lowerbound.model.distributions import tree
from lowerbound.model.distributions.diffusing.levels import Guess, Level
from lowerbound.model.distributions.diffusing.schedules import LogLinear
from lowerbound.model.distributions.diffusion import DiffusionDensity, Process
from lowerbound.noise import BatchNoise

SPREAD, EVENT = 0.6, torch.Size([3])
MEANS = torch.tensor([[0.5, -1.0, 2.0], [0.0, 1.5, -0.3]], dtype=torch.float64)
# Means of 4,000 numbers within 4.5 standard errors: some 30 numbers, false alarms 2e-4.
ROWS, LIMIT = 4000, 4.5


def gaussian(features: Tensor, steps: int = 200, share: float = 1.0) -> DiffusionDensity:
    """p(x|features) = N(features, 0.36 I), by the denoiser that is exact for it; a share of its answer is worse."""

    def denoiser(z: Tensor, given: Tensor | None, context: Tensor | None, level: Level) -> Guess:
        assert given is not None
        total = (level.alpha * SPREAD) ** 2 + level.sigma**2
        eps = share * level.sigma * (z - level.alpha * given) / total
        return Guess((z - level.sigma * eps) / level.alpha, eps)

    return DiffusionDensity(features, None, denoiser, Process(EVENT, LogLinear(start=12.0, end=-12.0), steps=steps))


def noise(seed: int, rows: int) -> BatchNoise:
    return BatchNoise(seed, 0, rows, dtype=torch.float64)


def test_the_bound_of_each_row_is_its_own_density() -> None:
    x = torch.tensor([0.3, 0.2, 1.0], dtype=torch.float64)
    for mean in MEANS:
        px = tree.attach(gaussian(mean.expand(ROWS, -1)), noise(0, ROWS))
        estimates, truth = px.log_prob(x.expand(ROWS, -1)), Normal(mean, SPREAD).log_prob(x).sum()
        assert abs(estimates.mean() - truth) < LIMIT * estimates.std() / math.sqrt(ROWS) + 1e-3


def test_a_worse_denoiser_gives_a_looser_bound() -> None:
    good, bad = (gaussian(MEANS[:1].expand(ROWS, -1), share=share) for share in (1.0, 0.9))
    x, _ = tree.draw(good, noise(1, ROWS))
    first, second = (tree.attach(p, noise(2, ROWS)).log_prob(x[0]) for p in (good, bad))
    assert first.mean() > second.mean() + LIMIT * (first - second).std() / math.sqrt(ROWS)


def test_draws_have_the_moments_of_the_density() -> None:
    z, log_q = tree.draw(gaussian(MEANS), noise(3, 2), ROWS)
    assert bool(log_q.isnan().all())
    assert bool(((z.mean(dim=0) - MEANS).abs() < LIMIT * SPREAD / math.sqrt(ROWS) + 0.01).all())
    assert bool(((z.std(dim=0) / SPREAD - 1).abs() < 0.06).all())


def test_the_point_of_a_gaussian_is_its_mean_and_the_same_every_time() -> None:
    px = gaussian(MEANS[:, None].expand(2, 5, 3))
    assert tree.point(px).shape == (2, 5, 3)
    torch.testing.assert_close(tree.point(px), MEANS[:, None].expand(2, 5, 3), rtol=0, atol=0.01)
    assert torch.equal(tree.point(px), tree.point(px))


def test_weights_of_an_estimate_are_refused_and_the_bound_is_not() -> None:
    row = FAMILIES["vae-diffusion-decoder"]
    model = row.make()
    x = model.preparation.prepare(raw_rows(LABELLED), noise(0, 6).child("x")).float()
    evidence = model.evidence(x, context_rows(LABELLED), BatchNoise(0, 0, 6), 2)
    assert evidence.elbo().shape == (6,)
    with pytest.raises(NotABoundError, match="estimate"):
        evidence.log_weight()
    with pytest.raises(NotABoundError, match="estimate"):
        evidence.importance_bound()


def test_rows_keep_their_own_context_when_they_are_selected() -> None:
    model = build_model(FAMILIES["vae-diffusion-decoder"].table, LABELLED, 0).eval()
    context = context_rows(LABELLED)
    px = model.decode({"z": torch.randn(6, 4)}, context)
    chosen = tree.map_rows(px, lambda tensor, axis: tensor.index_select(axis, torch.tensor([5, 2])))
    torch.testing.assert_close(tree.point(chosen), tree.point(px)[[5, 2]])
    other = tree.point(model.decode({"z": torch.zeros(6, 4)}, context))
    assert not torch.allclose(other[1], other[2]), "the label must matter"

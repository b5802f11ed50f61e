"""Divergences of the aggregate posterior from the prior, on cases where they are known."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from tables import CRITIC, FAMILIES, raw_rows
from torch import Tensor
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from lowerbound.errors import NotSupportedError
from lowerbound.model.build import build_objective
from lowerbound.model.distributions import tree
from lowerbound.model.evidence import Latent
from lowerbound.model.objectives.adversarial import permuted
from lowerbound.model.objectives.divergences import ESTIMATORS, decompose_rate
from lowerbound.model.objectives.matching import KERNELS, sliced_distance, squared_discrepancy
from lowerbound.model.objectives.moments import DIPI, DIPII, covariance_of_means, mean_covariance
from lowerbound.noise import BatchNoise, generator

MAP = torch.tensor([[1.2, 0.5], [0.9, -0.7], [0.3, 1.1]], dtype=torch.float64)  # x to the posterior's mean
SIGMA = torch.tensor([0.4, 0.7], dtype=torch.float64)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def gaussian_latent(rows: int, seed: int = 0) -> Latent:
    """x ~ N(0, I) in three dimensions, q(z|x) = N(M x, diag(SIGMA^2)), p(z) = N(0, I)."""
    q = tree.diagonal_normal(normal(rows, 3, seed=seed) @ MAP, (2 * SIGMA.log()).expand(rows, 2), 1)
    p = tree.diagonal_normal(torch.zeros(2).double(), torch.zeros(2).double(), 1)
    return Latent.drawn(q, p, BatchNoise(seed, 0, rows, dtype=torch.float64), 1)


def exact_terms() -> dict[str, float]:
    """The three parts of the mean rate of `gaussian_latent`: the aggregate is N(0, M^T M + diag(SIGMA^2))."""
    covariance = MAP.T @ MAP + torch.diag(SIGMA.square())
    variances = covariance.diagonal()
    one = torch.ones(2).double()
    return {
        "mutual_information": float(0.5 * (covariance.logdet() - SIGMA.square().log().sum())),
        "total_correlation": float(0.5 * (variances.log().sum() - covariance.logdet())),
        "dimension_wise_kl": float(kl_divergence(Normal(0 * one, variances.sqrt()), Normal(0 * one, one)).sum()),
    }


def test_the_exact_parts_of_the_rate_add_up_to_it() -> None:
    """E KL(N(Mx, S), N(0, I)) = (tr(M^T M + S) - D - log det S) / 2."""
    variances = (MAP.T @ MAP).diagonal() + SIGMA.square()
    rate = 0.5 * (variances.sum() - 2 - SIGMA.square().log().sum())
    assert sum(exact_terms().values()) == pytest.approx(float(rate), rel=1e-12)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_the_estimated_parts_add_up_to_the_sampled_rate(estimator: str) -> None:
    latent = gaussian_latent(32)
    terms = decompose_rate(latent, 1000, ESTIMATORS[estimator])
    torch.testing.assert_close(sum(terms.values()), latent.sampled()[0], rtol=1e-10, atol=1e-10)


def test_stratified_sampling_finds_the_exact_parts() -> None:
    """3,000 rows of a population without end; within 4.5 standard errors and a bias of order 1/B."""
    latent = gaussian_latent(3000)
    found = decompose_rate(latent, 10**9, ESTIMATORS["stratified"])
    for name, truth in exact_terms().items():
        error = float(found[name].std()) / math.sqrt(3000)
        assert abs(float(found[name].mean()) - truth) < 4.5 * error + 0.01, name


def test_weighted_sampling_is_low_in_density_and_high_in_information() -> None:
    """With N = B every posterior counts 1/B^2 instead of 1/B: log q(z) is too low by log B."""
    latent = gaussian_latent(3000)
    found = decompose_rate(latent, 3000, ESTIMATORS["weighted"])
    excess = float(found["mutual_information"].mean()) - exact_terms()["mutual_information"]
    assert excess == pytest.approx(math.log(3000), abs=0.1)


def test_stratified_weights_are_without_bias_over_all_batches() -> None:
    """All 4!/(4 - 3)! ordered batches of 3 of 4 rows: for a batch's first row, the mean of q(z) is the mixture's."""
    densities = torch.rand(4, generator=generator(2), dtype=torch.float64)  # q(z|x_j) at one z
    weights = ESTIMATORS["stratified"](3, 4).exp()
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(3).double())
    means = [
        torch.stack([weights[0] @ densities[list(batch)] for batch in itertools.permutations(range(4), 3)
                     if batch[0] == first]).mean()
        for first in range(4)
    ]  # fmt: skip
    torch.testing.assert_close(torch.stack(means), densities.mean().expand(4))


@pytest.mark.parametrize("kernel", KERNELS)
def test_discrepancy_is_zero_on_average_for_equal_distributions_and_grows_with_a_shift(kernel: str) -> None:
    same = torch.stack([
        squared_discrepancy(normal(50, 3, seed=k), normal(50, 3, seed=1000 + k), KERNELS[kernel]) for k in range(200)
    ])  # fmt: skip
    assert abs(same.mean()) < 4.5 * same.std() / math.sqrt(200)
    shifted = [
        squared_discrepancy(normal(200, 3) + shift, normal(200, 3, seed=1), KERNELS[kernel]) for shift in (0, 1, 2)
    ]
    assert shifted[0] < 0.02 < shifted[1] < shifted[2] < 2


def test_sliced_distance_of_a_shift_is_its_squared_length_over_the_dimensions() -> None:
    """W2^2 of a projected shift is (shift . direction)^2, whose mean over the sphere is |shift|^2 / D."""
    points, shift = normal(100, 3), torch.tensor([1.0, -2.0, 0.5]).double()
    rays = normal(20_000, 3, seed=5)
    rays = rays / rays.norm(dim=1, keepdim=True)
    found = sliced_distance(points + shift, points, rays)
    assert float(found) == pytest.approx(float(shift @ shift) / 3, rel=0.03)
    assert sliced_distance(points[torch.randperm(100)], points, rays) == 0


def test_moments_of_the_aggregate_are_those_of_its_mixture() -> None:
    latent = gaussian_latent(20_000)
    torch.testing.assert_close(covariance_of_means(latent.q), MAP.T @ MAP, rtol=0.05, atol=0.03)
    torch.testing.assert_close(mean_covariance(latent.q), torch.diag(SIGMA.square()))
    whole = DIPII.covariance(DIPII.__new__(DIPII), latent.q)
    torch.testing.assert_close(whole, torch.cov(latent.z[0].T), rtol=0.05, atol=0.03)
    off, on = DIPI.penalties_of([torch.tensor([[2.0, 0.5], [0.5, 0.0]])])
    assert (off, on) == (0.5, 2.0)


def test_critic_of_permuted_codes_finds_the_total_correlation() -> None:
    """Its logit estimates a log-ratio of densities, so its mean is the total correlation: Kim & Mnih 2018, eq. 3."""
    from lowerbound.model.networks.mlp import MLP
    from lowerbound.model.networks.network import Ports
    from lowerbound.model.objectives.games import critic_loss

    torch.manual_seed(0)
    correlation = 0.8
    joint = MultivariateNormal(torch.zeros(2), torch.tensor([[1, correlation], [correlation, 1]]))
    critic = MLP(Ports((2,), (1,)), widths=[32, 32])
    optimizer = torch.optim.Adam(critic.parameters(), 1e-2)
    for step in range(400):
        codes = joint.sample((512,))
        loss = critic_loss(critic(codes, None), critic(permuted(codes, BatchNoise(0, step, 512)), None))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    found = critic(joint.sample((20_000,)), None).mean().item()
    assert found == pytest.approx(-0.5 * math.log(1 - correlation**2), abs=0.07)


def test_factor_vae_moves_the_encoder_through_the_critic_and_neither_player_the_other() -> None:
    model = FAMILIES["vae"].make()
    objective = build_objective({"kind": "factor-vae", "critic": CRITIC}, model, 0)
    noise = BatchNoise(0, 0, 6)
    x = model.preparation.prepare(raw_rows(model.data), noise.child("prepare"))

    def reached(player: str) -> tuple[bool, bool]:
        own = objective if player == "critic" else model
        for part in (model, objective):
            part.requires_grad_(part is own)
            part.zero_grad(set_to_none=True)
        objective(model.evidence(x, None, noise), 0, player, noise).value.backward()
        return tuple(any(p.grad is not None for p in part.parameters()) for part in (model, objective))  # type: ignore[return-value]

    assert reached("model") == (True, False)
    assert reached("critic") == (False, True)
    model.requires_grad_(True)
    codes = model.evidence(x, None, noise).latents["z"].z[0]
    critic = objective.get_submodule("critic")
    slope = torch.autograd.grad(critic(codes, None).mean(), model.get_parameter("encoder.layers.0.weight"))[0]
    assert slope.abs().sum() > 0


def test_discrete_codes_are_refused_by_what_moves_codes() -> None:
    model = FAMILIES["vq-vae-ema"].make()
    noise = BatchNoise(0, 0, 6)
    x = model.preparation.prepare(raw_rows(model.data), noise)
    for kind in ("wasserstein-mmd", "sliced-wasserstein"):
        with pytest.raises(NotSupportedError, match="discrete"):
            build_objective({"kind": kind}, model, 0)(model.evidence(x, None, noise), 0, "model", noise)

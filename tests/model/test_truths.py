"""Exact truths: a linear-Gaussian VAE is probabilistic PCA, whose likelihood and posterior are known."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence

from lowerbound.lab.data.rows import InMemory
from lowerbound.lab.evaluation.bounds import bounds
from lowerbound.lab.training.loop import Loop
from lowerbound.lab.training.processes import Processes
from lowerbound.model.build import build_model, build_objective
from lowerbound.model.families.vae import VAE
from lowerbound.model.spec import DataSpec
from lowerbound.noise import BatchNoise, Draw, Noise, generator
from lowerbound.recipe import Training

DATA, LATENT, ROWS, SIGMA = 5, 3, 8, 0.6


class SigmaPoints(Noise):
    """The 2D points +-sqrt(D) e_i, with mean 0 and covariance I exactly, so that quadratics are averaged exactly."""

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self.device, self.dtype = torch.device("cpu"), torch.float64

    @property
    def rows(self) -> int:
        return self._rows

    def child(self, name: str) -> SigmaPoints:
        return self

    def draw(self, draw: Draw, samples: int, event: Sequence[int]) -> Tensor:
        raise NotImplementedError

    def normal(self, samples: int = 1, event: Sequence[int] = ()) -> Tensor:
        size = event[0]
        assert samples == 2 * size
        points = math.sqrt(size) * torch.cat([torch.eye(size), -torch.eye(size)]).double()
        return points[:, None].expand(-1, self.rows, -1)


@pytest.fixture
def model() -> VAE:
    """A VAE with linear maps in double precision; its posterior is not the true one."""
    table = {
        "kind": "vae",
        "latent": LATENT,
        "encoder": {"kind": "mlp", "widths": []},
        "decoder": {"kind": "mlp", "widths": []},
        "likelihood": {"kind": "gaussian-fixed", "sigma": SIGMA},
    }
    built = build_model(table, DataSpec((DATA,)), 0).double()
    assert isinstance(built, VAE)
    return built


@pytest.fixture
def x() -> Tensor:
    return torch.randn(ROWS, DATA, generator=generator(3), dtype=torch.float64)


def linear_map(model: VAE) -> tuple[Tensor, Tensor]:
    layer = model.decoder.get_submodule("layers.0")
    assert isinstance(layer, torch.nn.Linear)
    return layer.weight.detach(), layer.bias.detach()


def log_likelihood(model: VAE, x: Tensor) -> Tensor:
    """log N(x; b, W W^T + s^2 I): Tipping & Bishop 1999, eq. 3."""
    w, b = linear_map(model)
    variance = torch.exp(model.likelihood.get_buffer("logvar"))
    return MultivariateNormal(b, w @ w.T + variance * torch.eye(DATA)).log_prob(x)


def true_posterior(model: VAE, x: Tensor) -> MultivariateNormal:
    """N(M^-1 W^T (x - b), s^2 M^-1) with M = W^T W + s^2 I: Tipping & Bishop 1999, eq. 6-7."""
    w, b = linear_map(model)
    variance = torch.exp(model.likelihood.get_buffer("logvar"))
    m = w.T @ w + variance * torch.eye(LATENT)
    return MultivariateNormal((x - b) @ w @ torch.linalg.inv(m), variance * torch.linalg.inv(m))


def test_elbo_is_below_the_likelihood_by_the_divergence_from_the_true_posterior(model: VAE, x: Tensor) -> None:
    evidence = model.evidence(x, None, SigmaPoints(ROWS), 2 * LATENT)
    elbo, truth = evidence.elbo().detach(), log_likelihood(model, x)
    q = model.q(x, None)
    assert isinstance(q, Independent)
    full = MultivariateNormal(q.mean, torch.diag_embed(q.variance))
    gap = kl_divergence(full, true_posterior(model, x)).detach()
    assert (elbo < truth).all()
    torch.testing.assert_close(truth - elbo, gap, rtol=0, atol=1e-4)
    assert gap.min() > 0.01, "a test of a gap needs one"


def test_the_loss_at_the_posterior_mean_is_no_bound(model: VAE, x: Tensor) -> None:
    """Why every bound draws z: with the mean in its place the number lies above log p for a good posterior."""
    posterior = true_posterior(model, x)
    px = model.decode({"z": posterior.mean})
    prior = Normal(torch.zeros(LATENT).double(), 1.0)
    rate = kl_divergence(posterior, MultivariateNormal(prior.mean, torch.eye(LATENT).double()))
    assert ((px.log_prob(x) - rate) > log_likelihood(model, x)).all()


def test_importance_bound_rises_to_the_likelihood(model: VAE, x: Tensor) -> None:
    rows = x[:1].expand(400, -1)  # 400 independent estimates for one row
    found = bounds(model, [(rows, None, BatchNoise(0, 0, 400, dtype=torch.float64))], 2000)
    truth = log_likelihood(model, x)[0].item()
    means = [found.importance[count].mean().item() for count in (1, 10, 100, 2000)]
    errors = [found.importance[count].std().item() / 20 for count in (1, 10, 100, 2000)]
    assert means[0] < means[1] < means[2]
    for mean, error in zip(means, errors, strict=True):
        assert mean < truth + 4.5 * error
    assert abs(means[-1] - truth) < 4.5 * errors[-1] + 1e-3
    assert means[0] == pytest.approx(found.elbo.mean().item(), abs=5 * errors[0])


def test_closed_rate_agrees_with_its_estimate(model: VAE, x: Tensor) -> None:
    latent = model.evidence(x, None, BatchNoise(0, 0, ROWS, dtype=torch.float64), 20_000).latents["z"]
    closed, sampled = latent.closed(), latent.sampled()
    error = sampled.std(dim=0) / math.sqrt(20_000)
    assert ((closed[0] - sampled.mean(dim=0)).abs() < 4 * error).all()
    torch.testing.assert_close(closed, latent.closed_per_unit().sum(dim=2))
    torch.testing.assert_close(sampled, latent.sampled_per_unit().sum(dim=2))
    assert (closed >= 0).all()


def test_rate_of_the_prior_is_zero(model: VAE) -> None:
    prior = model.p(None)
    assert kl_divergence(prior, prior).abs() < 1e-12


def test_training_reaches_the_exact_optimum() -> None:
    """The likelihood of probabilistic PCA at its optimum is known; a linear VAE with a learned sigma comes near it."""
    source = generator(5)
    w = torch.linalg.qr(torch.randn(DATA, DATA, generator=source))[0][:, :2] * torch.tensor([2.0, 1.2])
    rows = torch.randn(2000, 2, generator=source) @ w.T + 0.3 * torch.randn(2000, DATA, generator=source)
    table = {
        "kind": "vae",
        "latent": 2,
        "encoder": {"kind": "mlp", "widths": []},
        "decoder": {"kind": "mlp", "widths": []},
        "likelihood": {"kind": "gaussian"},
    }
    data = DataSpec((DATA,), examples=2000)
    model = build_model(table, data, 0)
    training = Training.model_validate({"steps": 1500, "batch_size": 250, "learning_rate": 1e-2, "ema": 0.99})
    objective = build_objective({"kind": "elbo"}, model, 0)
    loop = Loop(model, objective, InMemory(rows), training, 0, torch.device("cpu"), Processes())
    loop.run(lambda step, parts: False)
    model.load_state_dict(loop.average.final(model))
    eigenvalues = torch.linalg.eigvalsh(torch.cov(rows.T, correction=0)).flip(0)
    noise = eigenvalues[2:].mean()
    optimum = (
        -0.5
        * (  # Tipping & Bishop 1999, eq. 8 at the maximum
            DATA * math.log(2 * math.pi) + eigenvalues[:2].log().sum() + (DATA - 2) * noise.log() + DATA
        )
    )
    with torch.no_grad():
        # 100 draws of 2,000 rows: the estimate's standard error is about 0.003.
        elbo = -model.evidence(rows, None, BatchNoise(1, 0, 2000), 100).elbo().mean()
    assert optimum - 0.05 < -elbo < optimum + 0.015

"""A richer posterior tightens the bound, on a model whose posterior is known and correlated; so does a richer prior."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, kl_divergence

from lowerbound.lab.data.load import load_data
from lowerbound.lab.data.rows import InMemory
from lowerbound.lab.training.loop import Loop
from lowerbound.lab.training.processes import Processes
from lowerbound.model.build import build_model, build_objective
from lowerbound.model.families.vae import VAE
from lowerbound.model.spec import DataSpec
from lowerbound.noise import BatchNoise, generator
from lowerbound.recipe import Training

ROWS, SIGMA = 64, 0.5
# Two directions that are nearly one: the posterior's units are correlated by -0.85.
WEIGHT = torch.tensor([[1.0, 0.9], [0.6, 0.7], [-0.5, -0.4]])
LINEAR = {"kind": "mlp", "widths": []}
PRECISION = torch.eye(2) + WEIGHT.T @ WEIGHT / SIGMA**2
# KL of the best Gaussian with independent units from the true posterior, whatever x is.
MEAN_FIELD_GAP = 0.5 * (PRECISION.diagonal().log().sum() - PRECISION.logdet()).item()


def model_with(posterior: dict[str, object]) -> VAE:
    """x ~ N(W z, 0.25 I), z ~ N(0, I), and a posterior to be trained."""
    table = {
        "kind": "vae",
        "latent": 2,
        "posterior": posterior,
        "encoder": LINEAR,
        "decoder": LINEAR,
        "likelihood": {"kind": "gaussian-fixed", "sigma": SIGMA},
    }
    model = build_model(table, DataSpec((3,)), 0)
    assert isinstance(model, VAE)
    with torch.no_grad():
        model.get_parameter("decoder.layers.0.weight").copy_(WEIGHT)
        model.get_parameter("decoder.layers.0.bias").zero_()
    return model


def rows() -> Tensor:
    source = generator(4)
    return torch.randn(ROWS, 2, generator=source) @ WEIGHT.T + SIGMA * torch.randn(ROWS, 3, generator=source)


def log_likelihood(x: Tensor) -> Tensor:
    return MultivariateNormal(torch.zeros(3), WEIGHT @ WEIGHT.T + SIGMA**2 * torch.eye(3)).log_prob(x)


def gap(posterior: dict[str, object]) -> float:
    """log p(x) - ELBO after 1,500 steps of the encoder alone, a mean over rows."""
    model, x = model_with(posterior), rows()
    parameters = [parameter for _, parameter in model.role_parameters("encoder")]
    optimizer = torch.optim.Adam(parameters, 1e-2)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 1500)
    for step in range(1500):
        loss = -model.evidence(x, None, BatchNoise(0, step, ROWS), 4).elbo().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        decay.step()
    with torch.no_grad():
        elbo = model.evidence(x, None, BatchNoise(1, 0, ROWS), 2000).elbo()
    return float((log_likelihood(x) - elbo).mean())


def test_full_covariance_reaches_the_likelihood_and_a_diagonal_one_falls_short_by_what_is_known() -> None:
    assert MEAN_FIELD_GAP > 0.5, "a test of a gap needs one"
    assert gap({"kind": "gaussian"}) == pytest.approx(MEAN_FIELD_GAP, abs=0.02)
    assert gap({"kind": "gaussian-full"}) == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize("kind", ["inverse-autoregressive", "coupling"])
def test_flows_come_near_the_likelihood(kind: str) -> None:
    assert -0.01 < gap({"kind": kind}) < 0.05


def test_the_exact_posterior_makes_the_bound_the_likelihood_row_by_row() -> None:
    """The encoder's weights are set to the true posterior N(P^-1 W^T x / s^2, P^-1), P = I + W^T W / s^2."""
    model, x = model_with({"kind": "gaussian-full"}).double(), rows().double()
    covariance = torch.linalg.inv(PRECISION.double())
    factor = torch.linalg.cholesky(covariance)
    diagonal = factor.diagonal()
    logvar = 2 * diagonal.log()
    with torch.no_grad():
        layer = model.get_submodule("encoder.layers.0")
        layer.get_parameter("weight").zero_()
        layer.get_parameter("weight")[:2] = covariance @ WEIGHT.double().T / SIGMA**2
        raw = -30 * logvar / (-30 - logvar)  # which the soft bound maps to the log variance
        layer.get_parameter("bias").copy_(torch.cat([torch.zeros(2), raw, (factor[1, 0] / diagonal[1])[None]]))
    evidence = model.evidence(x, None, BatchNoise(0, 0, ROWS, dtype=torch.float64), 3)
    truth = MultivariateNormal(torch.zeros(3).double(), (WEIGHT @ WEIGHT.T + SIGMA**2 * torch.eye(3)).double())
    # With the true posterior every weight p(x, z) / q(z|x) is p(x), whatever z is.
    torch.testing.assert_close(evidence.log_weight(), truth.log_prob(x).expand(3, -1), rtol=1e-6, atol=1e-6)
    prior = MultivariateNormal(torch.zeros(2).double(), torch.eye(2).double())
    closed = kl_divergence(model.q(x, None).flat, prior)  # type: ignore[attr-defined]
    torch.testing.assert_close(evidence.latents["z"].closed()[0], closed)


DENSITIES: dict[str, tuple[dict[str, object], float]] = {
    "autoregressive": ({"kind": "autoregressive"}, 5e-3),
    # Three clusters are a hard image of one Gaussian: it takes depth to pull it apart, and small steps.
    "flow": ({"kind": "flow", "steps": 12}, 2e-3),
}


@pytest.mark.parametrize("name", DENSITIES)
def test_learned_densities_come_near_the_entropy_of_three_gaussians(name: str) -> None:
    """gmm2d: log 3 + 2 (log sigma + log(2 pi e) / 2) = 0.142 nats; one Gaussian costs 3.3."""
    density, rate = DENSITIES[name]
    data = load_data({"kind": "gmm2d"})
    assert isinstance(data.train, InMemory)
    assert isinstance(data.test, InMemory)
    model = build_model({"kind": "density", "density": density}, data.spec, 0)
    training = Training.model_validate({
        "steps": 1500, "batch_size": 250, "learning_rate": rate, "schedule": "cosine", "clip": 10.0,
    })  # fmt: skip
    objective = build_objective({"kind": "elbo"}, model, 0)
    Loop(model, objective, data.train, training, 0, torch.device("cpu"), Processes()).run(lambda step, parts: False)
    with torch.no_grad():
        x = model.preparation.prepare(data.test.raw, None)
        nll = -model.evidence(x, None, BatchNoise(0, 0, len(x))).elbo()
    entropy = math.log(3) + 2 * (math.log(0.15) + 0.5 * math.log(2 * math.pi * math.e))
    error = float(nll.std()) / math.sqrt(len(nll))
    assert -4.5 * error < float(nll.mean()) - entropy < 0.08 + 4.5 * error

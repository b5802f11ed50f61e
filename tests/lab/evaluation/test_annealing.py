"""Annealed importance sampling: the exact likelihood where there is one, and a sandwich where there is none."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import MultivariateNormal

from lowerbound.errors import NotSupportedError
from lowerbound.lab.evaluation.annealing import annealed_lower_bound, sandwich, sandwich_results
from lowerbound.model.build import build_model
from lowerbound.model.families.family import Family
from lowerbound.model.spec import DataSpec
from lowerbound.noise import BatchNoise, generator

ROWS, DATA = 200, 4
LINEAR = {"kind": "mlp", "widths": []}


def build(decoder: dict[str, object], sigma: float = 0.5) -> Family:
    table = {
        "kind": "vae",
        "latent": 2,
        "encoder": LINEAR,
        "decoder": decoder,
        "likelihood": {"kind": "gaussian-fixed", "sigma": sigma},
    }
    model = build_model(table, DataSpec((DATA,)), 0).double().eval()
    for parameter in model.get_submodule("decoder").parameters():
        parameter.data.mul_(2)
    return model


def noise(seed: int = 0) -> BatchNoise:
    return BatchNoise(seed, 0, ROWS, dtype=torch.float64)


def log_likelihood(model: Family, x: torch.Tensor) -> torch.Tensor:
    layer = model.get_submodule("decoder.layers.0")
    weight, bias = layer.get_parameter("weight").detach(), layer.get_parameter("bias").detach()
    covariance = weight @ weight.T + 0.25 * torch.eye(DATA)
    return MultivariateNormal(bias, covariance).log_prob(x)


def test_all_bounds_agree_with_the_exact_likelihood_of_a_linear_model() -> None:
    model, x = build(LINEAR), torch.zeros(ROWS, DATA, dtype=torch.float64)
    found = sandwich(model, x, None, noise(), steps=200, chains=8)
    exact = log_likelihood(model, found.x)
    for bound in (found.lower, found.upper):
        error = bound - exact
        assert abs(float(error.mean())) < 3 * float(error.std()) / math.sqrt(ROWS) + 0.01
        assert float(error.std()) < 0.4


def test_a_short_path_bounds_loosely_and_on_the_right_sides() -> None:
    model, x = build(LINEAR), torch.zeros(ROWS, DATA, dtype=torch.float64)
    gaps = []
    for steps in (5, 40):
        found = sandwich(model, x, None, noise(), steps=steps, chains=2)
        exact = log_likelihood(model, found.x)
        assert float((exact - found.lower).mean()) > 0
        assert float((found.upper - exact).mean()) > 0
        gaps.append(float((found.upper - found.lower).mean()))
    assert gaps[0] > 2 * gaps[1]


def test_the_sandwich_holds_the_importance_bound_of_a_curved_model() -> None:
    model = build({"kind": "mlp", "widths": [16], "activation": "tanh"}, 0.3)
    found = sandwich(model, torch.zeros(ROWS, DATA, dtype=torch.float64), None, noise(), steps=150, chains=8)
    with torch.no_grad():
        evidence = model.evidence(found.x, None, noise(1), 1000)
        # The prior as proposal: slow, but unbiased whatever the encoder is worth.
        z = torch.randn(50_000, 2, dtype=torch.float64, generator=generator(2))
        px = model.decode({"z": z})
        truth = torch.stack(
            [torch.logsumexp(px.log_prob(row.expand(len(z), -1)), dim=0) for row in found.x]
        ) - math.log(len(z))
    assert abs(float((found.lower - truth).mean())) < 0.05
    assert abs(float((found.upper - truth).mean())) < 0.05
    results = sandwich_results(found, evidence.elbo(), evidence.importance_bound())
    lower, upper = (results[f"simulated_annealed_{side}_nats"].value for side in ("lower", "upper"))
    assert isinstance(lower, float)
    assert isinstance(upper, float)
    assert lower < upper + 0.02
    elbo_gap, importance_gap = (results[f"simulated_{name}_gap_nats"].value for name in ("elbo", "importance"))
    assert isinstance(elbo_gap, float)
    assert isinstance(importance_gap, float)
    assert elbo_gap > importance_gap > -0.05


def test_the_same_noise_gives_the_same_bound() -> None:
    model, x = build(LINEAR), torch.ones(ROWS, DATA, dtype=torch.float64)
    first, second = (annealed_lower_bound(model, x, None, noise(), steps=10, chains=2) for _ in range(2))
    assert torch.equal(first, second)


def test_discrete_codes_are_refused() -> None:
    quantizer = {"kind": "ema", "size": 4, "dimension": 3}
    model = build_model({"kind": "vq-vae", "positions": [2], "quantizer": quantizer}, DataSpec((DATA,)), 0)
    with pytest.raises(NotSupportedError, match="one group of continuous"):
        annealed_lower_bound(model, torch.zeros(ROWS, DATA), None, BatchNoise(0, 0, ROWS))

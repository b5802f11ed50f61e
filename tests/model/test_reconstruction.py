"""Reconstruction without a rate: what it adds up, and the Jacobian of a linear decoder."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import lowerbound
from lowerbound.errors import NotABoundError
from lowerbound.model.spec import DataSpec
from lowerbound.noise import BatchNoise, generator

ROWS = 4000


def model_of(posterior: str) -> Any:
    table = {
        "kind": "vae",
        "latent": 2,
        "posterior": {"kind": posterior},
        "encoder": {"kind": "mlp", "widths": []},
        "decoder": {"kind": "mlp", "widths": []},
        "likelihood": {"kind": "gaussian-fixed", "sigma": 1.0},
    }
    return lowerbound.build_model(table, DataSpec((3,)), 0)


@pytest.mark.parametrize("posterior", ["deterministic", "gaussian"])
def test_the_loss_is_what_it_says(posterior: str) -> None:
    model, noise = model_of(posterior), BatchNoise(0, 0, ROWS)
    x = torch.randn(ROWS, 3, generator=generator(0))
    evidence = model.evidence(x, None, noise)
    objective = lowerbound.build_objective({"kind": "reconstruction", "code": 0.5, "smoothness": 2.0}, model, 0)
    loss = objective(evidence, 0, "model", noise)
    distortion = evidence.distortion.mean()
    length = evidence.latents["z"].z.square().sum(dim=2).mean()
    jacobian = model.decoder.get_submodule("layers.0").weight.square().sum()
    # One direction per row estimates the Jacobian: 4,000 rows, relative standard error below 3 %.
    assert float(loss.parts["squared_jacobian"]) == pytest.approx(float(jacobian.detach()), rel=0.12)
    expected = distortion + 0.25 * length + loss.parts["squared_jacobian"]
    assert float(loss.value.detach()) == pytest.approx(float(expected.detach()), rel=1e-6)
    loss.value.backward()
    assert all(parameter.grad is not None for parameter in model.decoder.parameters())


def test_a_deterministic_code_has_no_rate_and_none_is_reported() -> None:
    model, noise = model_of("deterministic"), BatchNoise(0, 0, 8)
    evidence = model.evidence(torch.zeros(8, 3), None, noise)
    loss = lowerbound.build_objective({"kind": "reconstruction"}, model, 0)(evidence, 0, "model", noise)
    assert loss.parts.keys() == {"loss", "distortion_nats", "squared_code"}
    with pytest.raises(NotABoundError):
        evidence.elbo()

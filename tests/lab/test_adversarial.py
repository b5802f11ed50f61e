"""Adversarial autoencoders: codes of held-out rows are distributed as the prior that was given."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from lowerbound.lab.data.rows import InMemory
from lowerbound.lab.evaluation.quality import two_sample_test
from lowerbound.lab.training.loop import Loop
from lowerbound.lab.training.processes import Processes
from lowerbound.model.build import build_model, build_objective
from lowerbound.model.distributions import tree
from lowerbound.model.families.vae import VAE
from lowerbound.model.spec import DataSpec
from lowerbound.noise import BatchNoise, generator
from lowerbound.recipe import Training

ROWS = 2000
PRIORS: dict[str, dict[str, Any]] = {
    "standard": {"kind": "standard"},
    "mixture": {"kind": "mixture", "components": 4, "spread": 1.5},
    "ring": {"kind": "ring"},
}
PLANE = torch.tensor([[1.0, 0.3], [0.2, -1.0], [0.7, 0.7], [-0.4, 0.9]])
CRITIC = {"kind": "mlp", "widths": [128, 128], "activation": "leaky_relu"}


def rows(seed: int) -> Tensor:
    """Points near a plane in four dimensions, Gaussian on it."""
    source = generator(seed)
    noise = torch.randn(ROWS, 4, generator=source)
    return torch.randn(ROWS, 2, generator=source) @ PLANE.T + 0.1 * noise


def model_with(prior: dict[str, Any]) -> VAE:
    network = {"kind": "mlp", "widths": [64, 64]}
    table = {"kind": "vae", "latent": 2, "prior": prior, "encoder": network, "decoder": network}
    model = build_model({**table, "likelihood": {"kind": "gaussian-fixed", "sigma": 1.0}}, DataSpec((4,)), 0)
    assert isinstance(model, VAE)
    return model


def p_value(codes: Tensor, prior: dict[str, Any]) -> float:
    """Of a classifier that tells codes from as many draws of a prior, half of them held out (exact: a fair coin)."""
    with torch.no_grad():
        draws = tree.draw(model_with(prior).p(None), BatchNoise(9, 0, len(codes)))[0][0]
    value = two_sample_test(draws, codes)["two_sample_p_value"].value
    assert isinstance(value, float)
    return value


@pytest.mark.slow
@pytest.mark.parametrize("name", PRIORS)
def test_the_aggregate_posterior_passes_a_two_sample_test_against_its_prior_and_no_other(name: str) -> None:
    """Level 1e-3: codes that have the prior's distribution fail with this probability, each of the three."""
    model = model_with(PRIORS[name])
    objective = build_objective({"kind": "adversarial-prior", "weight": 30.0, "critic": CRITIC}, model, 0)
    training = Training.model_validate({
        "steps": 2500, "batch_size": 250, "learning_rate": 1e-3, "learning_rates": {"critic": 2e-3},
        "schedule": "cosine", "ema": 0.995, "betas": [0.5, 0.999],
    })  # fmt: skip
    loop = Loop(model, objective, InMemory(rows(0)), training, 0, torch.device("cpu"), Processes())
    loop.run(lambda step, parts: False)
    model.load_state_dict(loop.final_weights())
    model.eval()
    held_out = rows(2)
    with torch.no_grad():
        codes = model.encode(held_out, None, BatchNoise(1, 0, ROWS))["z"]
        error = (model.decode({"z": codes}).mean - held_out).square().mean().sqrt()
    assert p_value(codes, PRIORS[name]) > 1e-3
    for other in set(PRIORS) - {name}:
        assert p_value(codes, PRIORS[other]) < 1e-9
    assert float(error) < 0.5 * float(held_out.std()), "codes that say nothing could have any distribution"

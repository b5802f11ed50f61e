"""Finite losses and gradients whatever comes in, in every precision."""

from __future__ import annotations

import pytest
import torch
from tables import FAMILIES

from lowerbound.lab.data.rows import InMemory
from lowerbound.lab.training.loop import Loop
from lowerbound.lab.training.precision import LossScale
from lowerbound.lab.training.processes import Processes
from lowerbound.model.build import build_model, build_objective
from lowerbound.model.spec import DataSpec
from lowerbound.noise import BatchNoise
from lowerbound.recipe import Training

LIKELIHOODS = ["gaussian", "gaussian-fixed", "gaussian-pixel", "gaussian-optimal", "laplace", "student-t"]


def table(likelihood: str, networks: str) -> dict[str, object]:
    if networks == "mlp":
        down = up = {"kind": "mlp", "widths": [32, 32]}
    else:
        down, up = {"kind": "convolutional-down", "widths": [8]}, {"kind": "convolutional-up", "widths": [8]}
    return {"kind": "vae", "latent": 4, "likelihood": {"kind": likelihood}, "encoder": down, "decoder": up}


@pytest.mark.parametrize("networks", ["mlp", "convolutional"])
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize(("dtype", "scale"), [("fp32", 1e6), ("bf16", 1e6), ("fp16", 1e4), ("fp32", 0.0)])
def test_gradients_are_finite_for_huge_inputs(dtype: str, scale: float, likelihood: str, networks: str) -> None:
    """One turn of the loop with rows of size `scale`; fp16 may lower its loss scale first, as in training."""
    data = DataSpec((1, 8, 8), examples=16)
    model = build_model(table(likelihood, networks), data, 0)
    rows = InMemory(scale * torch.randn(16, 1, 8, 8, generator=torch.Generator().manual_seed(0)))
    training = Training.model_validate({"steps": 90, "batch_size": 16, "precision": dtype, "learning_rate": 1e-6})
    loop = Loop(model, build_objective({"kind": "elbo"}, model, 0), rows, training, 0, torch.device("cpu"), Processes())
    before = {name: value.clone() for name, value in model.named_parameters()}
    norms: list[float] = []
    loop.run(lambda step, parts: bool(norms.append(float(parts["gradient_norm_model"]))))
    assert torch.isfinite(torch.tensor(norms[-5:])).all()
    assert any(not torch.equal(before[name], value) for name, value in model.named_parameters()), "must have stepped"
    assert all(torch.isfinite(value).all() for value in model.parameters())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_densities_are_single_precision_islands(dtype: torch.dtype) -> None:
    model = FAMILIES["vae"].make()
    x = (torch.rand(6, 1, 8, 8) > 0.5).float()
    with torch.autocast("cpu", dtype):
        evidence = model.evidence(x, None, BatchNoise(0, 0, 6))
    assert evidence.reconstruction().dtype == torch.float32
    assert evidence.rate().dtype == torch.float32
    exact = model.evidence(x, None, BatchNoise(0, 0, 6))
    torch.testing.assert_close(evidence.elbo(), exact.elbo(), rtol=0.02, atol=0.5)


def test_loss_scale_halves_on_overflow_and_grows_back() -> None:
    scale = LossScale("fp16", patience=2)
    start = scale.value
    scale.update(False)
    assert scale.value == start / 2
    scale.update(True)
    assert scale.value == start / 2
    scale.update(True)
    assert scale.value == start
    other = LossScale("fp16", patience=2)
    other.load(scale.state())
    assert other.state() == scale.state()
    fixed = LossScale("bf16")
    fixed.update(False)
    assert fixed.value == 1

"""A VAE of rows of any shape, with latents of any shape: each network learns in small."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lowerbound.errors import ShapeError
from lowerbound.lab.data.rows import InMemory
from lowerbound.lab.training.loop import Loop
from lowerbound.lab.training.processes import Processes
from lowerbound.model.build import build_model, build_objective
from lowerbound.model.spec import DataSpec
from lowerbound.model.summary import summarise
from lowerbound.noise import generator
from lowerbound.recipe import Training

GAUSSIAN = {"kind": "gaussian"}
# Shape of a row, encoder, decoder, shape of the latents.
CASES: dict[str, tuple[tuple[int, ...], str, str, list[int]]] = {
    "vector-residual": ((6,), "residual", "residual", [3]),
    "vector-skip": ((6,), "mlp", "skip-mlp", [3]),
    "vector-to-grid": ((6,), "mlp", "residual", [2, 3, 3]),
    "signal": ((2, 16), "convolutional-down", "convolutional-up", [4]),
    "signal-grid": ((2, 16), "residual-down", "residual-up", [2, 4]),
    "image": ((1, 8, 8), "residual-down", "residual-up", [4]),
    "image-attention": ((1, 8, 8), "attention-down", "attention-up", [2, 2, 2]),
    "video": ((1, 4, 8, 8), "convolutional-down", "convolutional-up", [4]),
    "video-residual": ((1, 4, 8, 8), "residual-down", "residual-up", [2, 1, 2, 2]),
}


def waves(event: tuple[int, ...], rows: int) -> Tensor:
    """Rows that one hidden number makes."""
    hidden = torch.rand(rows, 1, generator=generator(0))
    place = torch.linspace(0, 3, torch.Size(event).numel())
    return torch.sin(place + 6.3 * hidden).reshape(rows, *event)


@pytest.mark.parametrize("name", CASES)
def test_rows_and_latents_of_any_shape(name: str) -> None:
    event, encoder, decoder, latent = CASES[name]
    data = DataSpec(event, examples=64)
    table = {"kind": "vae", "latent": latent, "likelihood": GAUSSIAN}
    model = build_model({**table, "encoder": {"kind": encoder}, "decoder": {"kind": decoder}}, data, 0)
    assert {row.name for row in summarise(model)} >= {"encoder", "decoder"}
    rows = InMemory(waves(event, 64))
    training = Training.model_validate({"steps": 60, "batch_size": 64, "learning_rate": 5e-3, "clip": 100.0})
    objective = build_objective({"kind": "elbo"}, model, 0)
    loop = Loop(model, objective, rows, training, 0, torch.device("cpu"), Processes())
    seen: list[float] = []
    loop.run(lambda step, parts: bool(seen.append(float(parts["elbo_nats"]))))
    size = torch.Size(event).numel()
    assert seen[-1] > seen[0] + 0.04 * size
    assert model.encode(rows.raw)["z"].shape == (64, *latent)


@pytest.mark.parametrize(
    "likelihood", [{"kind": "tokens", "word_dropout": 0.2}, {"kind": "categorical", "inputs": "tokens"}], ids=str
)
def test_tokens_with_attention(likelihood: dict[str, object]) -> None:
    data = DataSpec((7,), levels=5, examples=64)
    tokens = (torch.randint(5, (64, 1), generator=generator(0)) + torch.arange(7)) % 5
    table = {
        "kind": "vae",
        "latent": 4,
        "encoder": {"kind": "attention-down", "width": 16},
        "decoder": {"kind": "skip-mlp", "widths": [16]},
        "likelihood": likelihood,
    }
    model = build_model(table, data, 0)
    training = Training.model_validate({"steps": 150, "batch_size": 64, "learning_rate": 1e-2})
    objective = build_objective({"kind": "elbo"}, model, 0)
    loop = Loop(model, objective, InMemory(tokens), training, 0, torch.device("cpu"), Processes())
    seen: list[float] = []
    loop.run(lambda step, parts: bool(seen.append(float(parts["elbo_nats"]))))
    assert seen[-1] > seen[0] + 3


def test_an_encoder_of_tokens_refuses_numbers() -> None:
    data = DataSpec((7,), levels=5)
    with pytest.raises(ShapeError, match="vocabulary"):
        build_model({"kind": "vae", "encoder": {"kind": "tokens"}, "likelihood": {"kind": "categorical"}}, data, 0)

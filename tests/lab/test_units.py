"""Dead units are found, taken out and started anew."""

from __future__ import annotations

import pytest
import torch
from tables import FAMILIES

import lowerbound
from lowerbound.errors import NotSupportedError, UsageError
from lowerbound.lab.data.load import load_data
from lowerbound.lab.experiment import make_loop
from lowerbound.lab.units import dead_units, prune, reinitialise
from lowerbound.model.families.vae import VAE
from lowerbound.noise import BatchNoise

DIGITS = load_data({"kind": "digits"})
TABLE = {
    "kind": "vae",
    "latent": 32,
    "encoder": {"kind": "mlp", "widths": [64]},
    "decoder": {"kind": "mlp", "widths": [64]},
}


@pytest.fixture(scope="module")
def trained() -> tuple[VAE, torch.Tensor]:
    """A model with spare units, and held-out rows."""
    settings = ["model.latent=32", "model.encoder.widths=[64]", "model.decoder.widths=[64]", "training.steps=1200"]
    loop = make_loop(lowerbound.read_recipe("digits", [*settings, "training.learning_rate=5e-3"]), DIGITS)
    loop.run(lambda step, parts: False)
    model = loop.model.eval().requires_grad_(False)
    assert isinstance(model, VAE)
    raw = DIGITS.validation.take(torch.arange(200)).raw
    return model, model.preparation.prepare(raw, BatchNoise(0, 0, 200))


def test_dead_units_are_those_with_no_rate(trained: tuple[VAE, torch.Tensor]) -> None:
    model, x = trained
    dead = dead_units(model, x)
    assert 3 <= len(dead) < 32
    assert all(abs(value) < 0.15 for value in dead.values()), "a rate below 0.01 nats leaves the mean no room"


def test_a_pruned_model_is_smaller_and_makes_the_same(trained: tuple[VAE, torch.Tensor]) -> None:
    model, x = trained
    dead = dead_units(model, x)
    smaller, table = prune(model, TABLE, dead)
    kept = [unit for unit in range(32) if unit not in dead]
    assert table["latent"] == len(kept) == smaller.latents["z"][0]
    z, codes = model.encode(x)["z"], smaller.encode(x)["z"]
    assert torch.allclose(z[:, kept], codes, atol=1e-5)
    held = z.clone()
    held[:, list(dead)] = torch.tensor(list(dead.values()))
    before, after = model.decode({"z": held}).mean, smaller.decode({"z": codes}).mean
    assert torch.allclose(before, after, atol=1e-5)
    assert sum(p.numel() for p in smaller.parameters()) < sum(p.numel() for p in model.parameters())


def test_pruning_costs_next_to_nothing(trained: tuple[VAE, torch.Tensor]) -> None:
    model, x = trained
    smaller, _ = prune(model, TABLE, dead_units(model, x))
    bounds = [float(m.evidence(x, None, BatchNoise(0, 0, len(x)), 20).elbo().mean().detach()) for m in (model, smaller)]
    assert bounds[1] > bounds[0] - 0.1


def test_units_that_do_nothing_at_all_leave_outputs_the_same(trained: tuple[VAE, torch.Tensor]) -> None:
    model, x = trained
    broken = lowerbound.build_model(TABLE, model.data, 0).eval().requires_grad_(False)
    assert isinstance(broken, VAE)
    broken.load_state_dict(model.state_dict())
    silent = [3, 7, 31]
    last, first = broken.encoder.layers[-1], broken.decoder.layers[0]  # type: ignore[union-attr, index]
    last.weight[silent] = 0.0  # type: ignore[operator]
    last.bias[silent] = 0.3  # type: ignore[operator]
    first.weight[:, [7, 31]] = 0.0  # type: ignore[operator, index]
    smaller, _ = prune(broken, TABLE, dict.fromkeys(silent, 0.3))
    assert torch.allclose(broken.decode(broken.encode(x)).mean, smaller.decode(smaller.encode(x)).mean, atol=1e-5)


def test_reinitialised_units_are_fresh_and_others_stay(trained: tuple[VAE, torch.Tensor]) -> None:
    model, x = trained
    dead = dead_units(model, x)
    other = lowerbound.build_model(TABLE, model.data, 0).eval().requires_grad_(False)
    other.load_state_dict(model.state_dict())
    reinitialise(other, TABLE, list(dead), seed=5)
    before, after = model.encode(x)["z"], other.encode(x)["z"]
    kept = [unit for unit in range(32) if unit not in dead]
    assert torch.equal(before[:, kept], after[:, kept])
    assert (before[:, list(dead)] != after[:, list(dead)]).all(dim=0).all()
    assert after[:, list(dead)].std(dim=0).mean() > 1.3 * before[:, list(dead)].std(dim=0).mean()


def test_what_cannot_be_done_is_refused(trained: tuple[VAE, torch.Tensor]) -> None:
    model, _ = trained
    with pytest.raises(UsageError, match="keep at least one"):
        prune(model, TABLE, dict.fromkeys(range(32), 0.0))
    with pytest.raises(UsageError, match="there is no unit 32"):
        reinitialise(model, TABLE, [32], 0)
    with pytest.raises(NotSupportedError, match="another model"):
        prune(FAMILIES["top-down"].make(), {}, {0: 0.0})

"""Fine-tuning by low-rank updates: it begins as the model it starts from, changes nothing else, and learns."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import lowerbound
from lowerbound.errors import RecipeError, ShapeError
from lowerbound.lab.data.load import load_data
from lowerbound.model.build import build_model
from lowerbound.model.families.low_rank import LowRank
from lowerbound.model.networks.low_rank import ADDED, FROZEN
from lowerbound.model.spec import DataSpec

MLP = {"kind": "mlp", "widths": [16]}
VAE = {"kind": "vae", "latent": 4, "encoder": MLP, "decoder": MLP}
SMALL = ("model.latent=4", "model.encoder.widths=[16]", "model.decoder.widths=[16]", "training.steps=40")
NEW = 'data={kind="some-labels", data={kind="digits"}, without=[0, 1, 2, 3, 4, 5, 6, 7]}'


def test_it_begins_as_what_it_starts_from() -> None:
    spec = DataSpec((1, 8, 8), 17)
    plain, tuned = build_model(VAE, spec, 0), build_model({"kind": "low-rank", "inner": VAE, "rank": 2}, spec, 1)
    tuned.begin(plain)
    raw = torch.randint(0, 17, (5, 1, 8, 8))
    torch.testing.assert_close(lowerbound.reconstruct(tuned.eval(), raw), lowerbound.reconstruct(plain.eval(), raw))
    other = build_model({"kind": "low-rank", "inner": VAE, "rank": 2}, spec, 2)
    other.begin(tuned)
    assert all(
        torch.equal(one, two) for one, two in zip(other.state_dict().values(), tuned.state_dict().values(), strict=True)
    )


def test_only_updates_are_trained_and_the_new_domain_gains(tmp_path: Path) -> None:
    first = lowerbound.train(lowerbound.read_recipe("digits", SMALL), tmp_path / "first")
    start = {"model": {"kind": "low-rank", "rank": 2, "inner": first.recipe().model}, "start": str(first.path)}
    recipe = lowerbound.read_recipe("digits", [NEW, "training.steps=100", "objective.beta=1.0"]).model_copy(
        update=start
    )
    run = lowerbound.train(recipe, tmp_path / "tuned")
    before, after = first.model(), run.model()
    assert isinstance(after, LowRank)
    weights = before.state_dict()
    for name, tensor in after.state_dict().items():
        own = name.removeprefix("inner.").replace(FROZEN, "weight")
        assert (ADDED in name) == (own not in weights)
        assert ADDED in name or torch.equal(tensor, weights[own]), name
    judged = [lowerbound.evaluate(each, data=load_data(recipe.data), write=False) for each in (first, run)]
    before_nats, after_nats = (each.results["elbo_nats"].value for each in judged)
    assert isinstance(before_nats, float)
    assert isinstance(after_nats, float)
    assert after_nats > before_nats + 0.7


def test_what_cannot_be_adapted_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ShapeError, match="smaller rank"):
        build_model({"kind": "low-rank", "inner": VAE, "rank": 1000}, DataSpec((1, 8, 8), 17), 0)
    recipe = lowerbound.read_recipe("digits").model_copy(update={"model": {"kind": "low-rank", "inner": VAE}})
    with pytest.raises(RecipeError, match="start"):
        lowerbound.train(recipe, tmp_path / "run")

"""Training that begins from another run's weights, and moves one role of the model only."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import lowerbound
from lowerbound.errors import NotSupportedError, RunError, ShapeError
from lowerbound.lab.compatibility import codes_hash
from lowerbound.lab.run import Run

SMALL = ["training.steps=4", "training.batch_size=32", "model.encoder.widths=[8]", "model.decoder.widths=[8]"]
FOCUS = ["objective={kind='focus', role='decoder'}", "training.learning_rate=1e-2"]


def trained(recipe: str, folder: Path, *settings: str) -> Run:
    return lowerbound.train(lowerbound.read_recipe(recipe, [*SMALL, *settings]), folder)


@pytest.mark.parametrize("recipe", ["digits", "digits-codes"])
def test_a_decoder_is_brought_up_to_date_under_codes_that_stay(recipe: str, tmp_path: Path) -> None:
    small = SMALL if recipe == "digits" else SMALL[:2]
    settings = lowerbound.read_recipe(recipe, small)
    before = lowerbound.train(settings, tmp_path / "before")
    after = lowerbound.train(
        lowerbound.read_recipe(recipe, [*small, *FOCUS, f"start={str(before.path)!r}"]), tmp_path / "after"
    )
    old, new = before.model(), after.model()
    assert codes_hash(old, settings.model) == codes_hash(new, settings.model)
    raw = lowerbound.load_data(settings.data).test.take(torch.arange(50)).raw
    for name, codes in lowerbound.encode(old, raw).items():
        assert torch.equal(codes, lowerbound.encode(new, raw)[name])
    moved = {
        name.split(".")[0] for name, value in new.state_dict().items() if not torch.equal(value, old.state_dict()[name])
    }
    assert "decoder" in moved
    assert moved <= set(old.beyond_codes)


def test_training_begins_with_the_weights_of_the_other_run(tmp_path: Path) -> None:
    before = trained("digits", tmp_path / "before", "training.ema=0")
    recipe = lowerbound.read_recipe("digits", [*SMALL, f"start={str(before.path)!r}", "seed=5"])
    loop = lowerbound.make_loop(recipe, lowerbound.load_data(recipe.data))
    for name, value in before.model().state_dict().items():
        assert torch.equal(loop.model.state_dict()[name], value)


def test_a_start_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is no run"):
        trained("digits", tmp_path / "run", f"start={str(tmp_path / 'nothing')!r}")
    before = trained("digits", tmp_path / "before")
    with pytest.raises(ShapeError, match="whose model is another one"):
        trained("digits", tmp_path / "run", "model.latent=3", f"start={str(before.path)!r}")


def test_an_objective_without_one_turn_of_the_role_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotSupportedError, match="no role `prior`"):
        trained("digits", tmp_path / "run", "objective={kind='focus', role='prior'}")
    other = "objective={kind='focus', role='decoder', objective={kind='focus', role='encoder'}}"
    with pytest.raises(NotSupportedError, match="0 turns that move the `decoder`"):
        trained("digits", tmp_path / "run", other)

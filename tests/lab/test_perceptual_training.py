"""Perceptual losses whose network comes from outside of the recipe: a file of weights, or another run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import lowerbound
from lowerbound.errors import NotSupportedError, RunError, TamperedError
from lowerbound.lab.data.rows import Dataset, InMemory
from lowerbound.lab.training.journal import read_journal
from lowerbound.model.networks.pictures import ALEXNET, LearnedDistance
from lowerbound.model.spec import DataSpec
from lowerbound.noise import generator
from lowerbound.recipe import Recipe

SIDE = 40
CHANNELS = {0: (64, 3, 11), 3: (192, 64, 5), 6: (384, 192, 3), 8: (256, 384, 3), 10: (256, 256, 3)}


def pictures() -> Dataset:
    rows = InMemory(torch.randint(0, 256, (12, 1, SIDE, SIDE), dtype=torch.uint8, generator=generator(0)))
    return Dataset("pictures", DataSpec((1, SIDE, SIDE), 256, examples=12), rows, rows, rows)


def recipe(comparison: dict[str, Any], objective: str = "elbo") -> Recipe:
    small = {"kind": "mlp", "widths": [8]}
    model = {"kind": "vae", "latent": 2, "encoder": small, "decoder": small, "likelihood": {"kind": "gaussian-optimal"}}
    table = {"kind": "perceptual", "comparison": comparison, "objective": {"kind": objective}}
    training = {"steps": 2, "batch_size": 6, "journal_every": 1, "checkpoint_every": 1, "film": 0}
    named = {"name": "perceptual", "data": {"kind": "digits"}, "model": model, "objective": table}
    return Recipe.model_validate({**named, "training": training})


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """Weights in the form of LPIPS with AlexNet, at random."""
    source, found = generator(1), {}
    for place, (number, (after, before, side)) in enumerate(CHANNELS.items()):
        found[f"features.{number}.weight"] = 0.1 * torch.randn(after, before, side, side, generator=source)
        found[f"features.{number}.bias"] = torch.zeros(after)
        found[f"lin{place}.model.1.weight"] = torch.rand(1, after, 1, 1, generator=source)
    assert tuple(CHANNELS) == ALEXNET.taps
    save_file(found, tmp_path / "lpips.safetensors")
    return tmp_path / "lpips.safetensors"


@pytest.mark.parametrize("objective", ["elbo", "vae-gan"])
def test_the_weights_of_a_file_are_used_and_not_kept(objective: str, weights: Path, tmp_path: Path) -> None:
    table = recipe({"kind": "lpips", "path": str(weights)}, objective)
    run = lowerbound.train(table, tmp_path / "run", data=pictures())
    assert all(row["perceptual"] > 0 for row in read_journal(run.journal_path))
    kept = load_file(sorted(run.checkpoints.glob("step-*"))[-1] / "objective.safetensors")
    assert not any("comparison" in name for name in kept)


def test_the_distance_has_a_gradient_to_what_is_made(weights: Path) -> None:
    distance = LearnedDistance(load_file(weights), "weights")
    made = torch.zeros(2, 3, SIDE, SIDE, requires_grad=True)
    distance(torch.ones(2, 3, SIDE, SIDE), made).sum().backward()
    assert made.grad is not None
    assert bool((made.grad.abs().sum(dim=(1, 2, 3)) > 0).all())
    assert not list(distance.parameters())


def test_the_encoder_of_another_run_compares(tmp_path: Path) -> None:
    first = lowerbound.train(recipe({"kind": "random-features"}), tmp_path / "first", data=pictures())
    before = first.weights_path.read_bytes()
    again = lowerbound.train(recipe({"kind": "encoder", "path": str(first.path)}), tmp_path / "run", data=pictures())
    assert all(row["perceptual"] > 0 for row in read_journal(again.journal_path))
    assert first.weights_path.read_bytes() == before
    kept = load_file(sorted(again.checkpoints.glob("step-*"))[-1] / "objective.safetensors")
    theirs = load_file(first.weights_path)
    assert all(torch.equal(value, kept[f"comparison.model.{name}"]) for name, value in theirs.items())


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(TamperedError, match="nothing"):
        lowerbound.train(recipe({"kind": "lpips", "path": "nothing.safetensors"}), tmp_path / "a", data=pictures())
    with pytest.raises(RunError, match="nowhere"):
        lowerbound.train(recipe({"kind": "encoder", "path": "nowhere"}), tmp_path / "b", data=pictures())
    table = recipe({"kind": "lpips", "path": "weights.safetensors"})
    model = lowerbound.build_model(table.model, pictures().spec, 0)
    with pytest.raises(NotSupportedError, match="cannot be read here"):
        lowerbound.build_objective(table.objective, model, 0)

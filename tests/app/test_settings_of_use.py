"""How a model is used is chosen on the command line, and what was trained is not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from harness import Cli

import lowerbound


@pytest.fixture(scope="module")
def points(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of a diffusion model of points; not to be changed."""
    settings = ["training.steps=2", "training.batch_size=8", "model.network.width=8"]
    recipe = lowerbound.read_recipe("gmm2d-diffusion", settings)
    return lowerbound.train(recipe, tmp_path_factory.mktemp("points") / "run").path


def test_a_sampler_is_chosen_in_use(points: Path, cli: Cli, tmp_path: Path) -> None:
    made = {}
    for kind in ("edm-heun", "ancestral"):
        out = tmp_path / f"{kind}.npy"
        settings = ("--set", f"sampler.kind={kind}", "--set", "steps=4")
        assert cli("sample", points, "--out", out, "--count", 5, *settings).code == 0
        made[kind] = np.load(out)
    assert made["ancestral"].shape == (5, 2)
    assert not np.allclose(made["ancestral"], made["edm-heun"])


def test_what_cannot_be_chosen_is_refused_in_a_sentence(points: Path, digits: Path, cli: Cli, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "out.npy")
    cli("sample", points, *out, "--set", "guidance=3").refused(2, "guidance of 3", "have none")
    cli("sample", points, *out, "--set", "prediction.kind=v").refused(2, "prediction", "only sampler, steps, guidance")
    cli("sample", points, *out, "--set", "sampler.kind=dpm").refused(2, "dpm-solver")
    cli("sample", points, *out, "--set", "steps=0").refused(2, "steps")
    cli("sample", digits, *out, "--set", "latent=3").refused(2, "none that could be")
    assert not (tmp_path / "out.npy").exists()

"""Samples of what a text says, or given numbers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from harness import Cli

import lowerbound
from lowerbound.errors import NotSupportedError
from lowerbound.service.serving.contract import Contract

ASKED = "a red circle at the left"


def test_a_text_says_what_is_made(cli: Cli, trained: Path, tmp_path: Path) -> None:
    overrides = ["training.steps=20", "training.batch_size=32", "data.count=200"]
    run = lowerbound.train(lowerbound.read_recipe("captioned-shapes", overrides), tmp_path / "run").path
    out = ["--out", tmp_path / "rows.npy", "--count", "4"]
    assert cli("sample", run, *out, "--context", ASKED).code == 0
    one = np.load(tmp_path / "rows.npy")
    assert one.shape == (4, 3, 16, 16)
    assert cli("sample", run, *out, "--context", "a blue square at the right").code == 0
    assert not np.allclose(one, np.load(tmp_path / "rows.npy"))
    cli("sample", run, *out, "--context", "a purple circle at the left").refused(2, "'purple'", "unknown")
    cli("sample", run, *out).refused(2, "--context")
    cli("sample", run, *out, "--context", ASKED, "--label", "1").refused(2, "one of them")
    cli("sample", trained / "digits", *out, "--context", ASKED).refused(2, "not conditional on texts")
    lowerbound.evaluate(run, lowerbound.Evaluation(samples=1, examples=40, generated=40))
    found = json.loads((run / "evaluation.json").read_text())["results"]
    shares = found["asked_share_per_attribute"]["value"]
    assert len(shares) == 3
    assert 0 <= found["asked_share"]["value"] <= min(shares)


def test_numbers_of_a_file_say_what_is_made(cli: Cli, trained: Path, tmp_path: Path) -> None:
    places = np.random.default_rng(0).uniform(-1, 1, (400, 2))
    np.savez(tmp_path / "data.npz", x=places.repeat(2, axis=1), place=places)
    data = {"kind": "arrays", "path": str(tmp_path / "data.npz"), "key": "x", "vectors": "place"}
    recipe = lowerbound.read_recipe("digits-conditional", ["training.steps=300", "training.batch_size=64"])
    model = {**recipe.model, "latent": 2, "likelihood": {"kind": "gaussian"}}
    run = lowerbound.train(recipe.model_copy(update={"data": data, "model": model}), tmp_path / "run").path
    out = ["--out", tmp_path / "rows.npy", "--count", "2"]
    np.save(tmp_path / "one.npy", [0.5, -0.5])
    np.save(tmp_path / "each.npy", [[0.5, -0.5], [-0.5, 0.5]])
    np.save(tmp_path / "wide.npy", [0.5, -0.5, 0.0])
    assert cli("sample", run, *out, "--context", tmp_path / "one.npy").code == 0
    assert (np.sign(np.load(tmp_path / "rows.npy")) == [[1, 1, -1, -1]] * 2).all()
    assert cli("sample", run, *out, "--context", tmp_path / "each.npy").code == 0
    assert (np.sign(np.load(tmp_path / "rows.npy")) == [[1, 1, -1, -1], [-1, -1, 1, 1]]).all()
    cli("sample", run, *out).refused(2, "--context FILE.npy")
    cli("sample", run, *out, "--label", "1").refused(2, "not on labels")
    cli("sample", run, *out, "--context", tmp_path / "wide.npy").refused(2, "[3]", "[2, 2]")
    cli("sample", trained / "digits", *out, "--context", tmp_path / "one.npy").refused(2, "not conditional on numbers")
    with pytest.raises(NotSupportedError, match="by numbers"):
        Contract.of(lowerbound.load(run), ("z",))

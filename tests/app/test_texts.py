"""Samples of what a text says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from harness import Cli

import lowerbound

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

"""The figures of the smallest generator: three Gaussians in the plane, by the command that a user types."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import lowerbound

COMMAND = [sys.executable, "-m", "lowerbound"]


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_three_gaussians_are_learned(tmp_path: Path, seed: int) -> None:
    place = {**os.environ, "OMP_NUM_THREADS": "1"}
    out = str(tmp_path / "run")
    train = [*COMMAND, "train", "gmm2d", "--out", out, "--set", f"seed={seed}"]
    subprocess.run(train, check=True, timeout=300, env=place, stdout=subprocess.DEVNULL)
    judged = subprocess.run(
        [*COMMAND, "evaluate", out, "--json"], check=True, timeout=300, env=place, stdout=subprocess.PIPE
    )
    results = {name: result["value"] for name, result in json.loads(judged.stdout)["results"].items()}
    for kind in ("generated", "observed"):
        assert results[f"{kind}_distance_to_centre"] <= 0.25
        assert results[f"{kind}_within_1_of_centre"] >= 0.97
        assert results[f"{kind}_share_per_centre"] == pytest.approx([1 / 3] * 3, abs=0.05)
    # 2,000 test points: the standard error of either is about 0.02, and they are of the same points.
    assert results["true_nll_nats"] - 0.01 < results["nll_nats"] < results["true_nll_nats"] + 0.06


@pytest.mark.slow
def test_a_spline_flow_comes_within_a_fiftieth_of_a_nat_of_the_entropy(tmp_path: Path) -> None:
    """The mean of the difference over the same 20,000 points; no model can expect to be below 0."""
    run = lowerbound.train(lowerbound.read_recipe("gmm2d-spline"), tmp_path / "run")
    settings = lowerbound.Evaluation(samples=1, examples=20_000, features=[])
    results = lowerbound.evaluate(run, settings).results
    nll, truth, above = (results[name].value for name in ("nll_nats", "true_nll_nats", "nll_above_true_nats"))
    assert isinstance(nll, float)
    assert isinstance(truth, float)
    assert above == pytest.approx(nll - truth, abs=1e-5)
    assert -0.005 < above < 0.02

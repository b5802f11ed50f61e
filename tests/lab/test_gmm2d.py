"""The figures of the smallest generator: three Gaussians in the plane, by the command that a user types."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

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
